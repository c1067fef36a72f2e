"""Finds TensorRT, torch and a GPU, and names what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from pipeline.model.errors import DeploymentError

NAMES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""In order of preference. The second re-exports the third, which can be installed by itself."""

BUILD_FOR_OTHER_GPUS = ("tensorrt_rtx", "tensorrt_rtx_bindings")
"""Those that build plans for the GPU of another machine."""


def what_is_missing() -> str | None:
    """Return why TensorRT cannot run on this machine; None where it can."""
    try:
        find_tensorrt()
        find_gpu()
    except DeploymentError as error:
        return error.sentence
    return None


def find_tensorrt(names: Sequence[str] = NAMES) -> ModuleType:
    """Return the bindings of TensorRT, or of TensorRT-RTX: the first of `names` that loads.

    Raises: DeploymentError, which names the package or the library that is missing.
    """
    faults: list[str] = []
    for name in names:
        try:
            module = import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            faults.append(f"{name}: {_first_line(error)}")
            continue
        if hasattr(module, "Builder"):
            return module
        faults.append(f"{name} is installed without its libraries")
    why = "; ".join(faults) or f"the package {names[0]} is not installed"
    raise DeploymentError(f"TensorRT cannot be loaded: {why}.", code="tensorrt_missing")


def find_gpu() -> ModuleType:
    """Return torch, which allocates the device memory.

    Raises: DeploymentError, where torch is missing, was built without CUDA, or finds no GPU.
    """
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise DeploymentError(
            "TensorRT needs the package torch (built with CUDA), which is not installed.",
            code="torch_missing",
        ) from error
    if torch.version.cuda is None:
        raise DeploymentError(
            "TensorRT needs torch built with CUDA; the installed torch is a CPU build.",
            code="torch_without_cuda",
        )
    if not torch.cuda.is_available():
        raise DeploymentError(
            "TensorRT needs an NVIDIA GPU and its driver; none is seen.", code="gpu_missing"
        )
    return torch


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
