"""models build-engines: plans on disk, or one line and exit code 2."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.tensorrt.libraries import what_is_missing
from tests.support import tiny_bundle
from worker.cli import main
from worker.settings import variable_of

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None, reason="tensorrt_rtx_bindings is not installed"
)


@pytest.fixture
def ran(tmp_path, monkeypatch, capsys):
    """A function that runs the command on a tiny bundle: its exit code, its lines, the plans."""
    bundle, plans = tmp_path / "bundle", tmp_path / "plans"
    bundle.mkdir()
    tiny_bundle.write_bundle(bundle)
    monkeypatch.setenv(variable_of("plans_dir"), str(plans))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["leukoflow", "models", "build-engines", str(bundle), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return (
            ended.value.code,
            printed.out.splitlines(),
            printed.err.splitlines(),
            sorted(plans.glob("*.plan")),
        )

    return run


@pytest.mark.skipif(what_is_missing() is None, reason="this machine has a GPU and TensorRT")
def test_without_a_gpu_it_is_one_line_that_names_what_is_missing(ran):
    code, out, err, plans = ran()
    assert (code, out, plans) == (2, [], [])
    assert err == [f"leukoflow: {what_is_missing()}"]


def test_int8_without_pictures_is_one_line(ran):
    code, _out, err, _plans = ran("--precision", "int8", "--compute-capability", "8.9")
    assert code == 2
    assert len(err) == 1
    assert "--calibration" in err[0]


@needs_rtx
def test_plans_are_built_for_a_gpu_that_is_not_here(ran):
    code, out, _err, plans = ran("--compute-capability", "8.9")
    assert code == 0
    assert len(out) == len(plans) == 1 + len(tiny_bundle.MEMBER_SEEDS)
    assert all("fp16 for 8.9" in line for line in out)
    assert ran("--compute-capability", "8.9")[3] == plans


@needs_rtx
def test_int8_is_calibrated_on_the_pictures_of_a_folder(ran, tmp_path):
    pictures = tmp_path / "cells"
    pictures.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(pictures / "cell.png")
    code, out, err, plans = ran(
        "--precision", "int8", "--compute-capability", "8.9", "--calibration", str(pictures)
    )
    assert (code, err) == (0, [])
    assert len(out) == len(plans) == 1 + len(tiny_bundle.MEMBER_SEEDS)


@needs_rtx
def test_an_unknown_gpu_is_one_line(ran):
    code, _out, err, plans = ran("--compute-capability", "3.5")
    assert (code, plans) == (2, [])
    assert err[0].endswith("does not support compute capability 3.5.")
