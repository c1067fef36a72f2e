"""Finds TensorRT, torch and a GPU, and names what is missing: nothing is replaced in silence."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from pipeline.model.errors import DeploymentError

NAMES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""In the order of preference. The last is what the second re-exports, and installs without it."""

AHEAD = ("tensorrt_rtx", "tensorrt_rtx_bindings")
"""Those that build for a GPU that is not here."""


def what_is_missing() -> str | None:
    """Return what keeps TensorRT from running here, as a sentence's end; None where nothing does."""
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
    """Return torch, through which device memory is had, where it sees a GPU.

    Raises: DeploymentError, where torch is missing, or has no CUDA, or sees no GPU.
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
