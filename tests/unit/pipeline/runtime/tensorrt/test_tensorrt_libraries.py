"""What is missing is named, and nothing is loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from pipeline.model.errors import DeploymentError
from pipeline.runtime.tensorrt import libraries
from pipeline.runtime.tensorrt.batch_shapes import BatchShape, PlanPrecision, ShapeProfile, Size, squares
from pipeline.runtime.tensorrt.tensorrt_engine import PlanRequest, open_tensorrt


def importing(**found):
    """An `import_module` that knows these modules only; an error is raised."""

    def import_module(name):
        module = found.get(name, ModuleNotFoundError(f"No module named {name!r}", name=name))
        if isinstance(module, BaseException):
            raise module
        return module

    return import_module


WORKING = SimpleNamespace(Builder=object, __name__="tensorrt", __version__="11.4.1")


def torch_with(cuda, available):
    return SimpleNamespace(
        version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(is_available=lambda: available)
    )


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        ({}, "the package tensorrt is not installed"),
        ({"tensorrt": ImportError("libnvinfer.so.11: cannot open shared object file")}, "libnvinfer.so.11"),
        ({"tensorrt": SimpleNamespace()}, "without its libraries"),
        ({"tensorrt": WORKING}, "package torch"),
        ({"tensorrt": WORKING, "torch": torch_with(None, False)}, "CPU build"),
        ({"tensorrt": WORKING, "torch": torch_with("13.0", False)}, "NVIDIA GPU"),
    ],
)
def test_whatever_is_missing_is_named(monkeypatch, tmp_path, modules, named):
    monkeypatch.setattr(libraries, "import_module", importing(**modules))
    missing = libraries.what_is_missing()
    assert missing is not None
    assert named in missing
    with pytest.raises(DeploymentError, match=named):
        open_tensorrt(tmp_path / "any.onnx", PlanRequest(squares(8, 1, 1), tmp_path))


def test_nothing_is_missing_where_all_is_there(monkeypatch):
    monkeypatch.setattr(
        libraries, "import_module", importing(tensorrt=WORKING, torch=torch_with("13.0", True))
    )
    assert libraries.what_is_missing() is None


def test_tensorrt_is_taken_before_tensorrt_rtx(monkeypatch):
    other = SimpleNamespace(Builder=object)
    monkeypatch.setattr(libraries, "import_module", importing(tensorrt=WORKING, tensorrt_rtx=other))
    assert libraries.find_tensorrt() is WORKING
    monkeypatch.setattr(libraries, "import_module", importing(tensorrt_rtx=other))
    assert libraries.find_tensorrt() is other


def test_loading_the_package_loads_neither_tensorrt_nor_torch_nor_onnx():
    script = (
        "import sys, pipeline.runtime.tensorrt.tensorrt_engine, tests.support.fake_engine\n"
        "print(sorted({'tensorrt', 'tensorrt_rtx_bindings', 'torch', 'onnx'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("counts", [(0, 1, 2), (2, 1, 4), (1, 4, 2)])
def test_a_profile_out_of_order_is_no_profile(counts):
    least, usual, most = (BatchShape(count, Size(8, 8)) for count in counts)
    with pytest.raises(ValueError, match="not in order"):
        ShapeProfile(least, usual, most)


def test_precisions_are_written_as_the_engine_says_them():
    assert [str(precision) for precision in PlanPrecision] == ["fp32", "fp16", "int8"]
