"""What `evaluate` and `models threshold` refuse: one line, exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bundle.manifest import DataEntry, Profile
from pipeline.model.domain import CallStatus
from pipeline.model.geometry import Rect
from pipeline.model.taxonomy import CellClass
from pipeline.training.data.intervals import ImageGroup
from pipeline.training.evaluate.end_to_end import LabelledCell, PictureScore, Prediction
from pipeline.training.evaluate.evaluation_file import Evaluation, EvaluationSubject, render_evaluation
from tests.support import tiny_bundle
from tests.support.drawn_pack import DrawnPack
from worker.cli import main

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return what runs a command line that fails as a person's mistake, and returns the sentence."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["leukoflow", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert said.startswith("leukoflow: ")
        assert said.count("\n") == 1
        return said

    return run


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a bundle that was trained on the fields of chula."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    manifest = tiny_bundle.write_bundle(folder)
    learnt = (DataEntry("chula_wbc", "MIT", 14, 7),)
    tiny_bundle.write_manifest(folder, replace(manifest, data_sets=learnt))
    return folder


@pytest.mark.parametrize("folder", ["chula_wbc", "chula_wbc_crops"])
def test_no_set_of_patients_that_were_trained_on_is_measured_in_full(
    refused: Refused, bundle: Path, tmp_path: Path, folder: str
) -> None:
    said = refused(
        "evaluate", "--data", str(tmp_path), "--bundle", str(bundle), "--split", "all", "--set", folder
    )
    assert f"trained on the patients of {folder}" in said


def test_a_set_of_which_no_picture_can_be_read(refused: Refused, bundle: Path, tmp_path: Path) -> None:
    pack = DrawnPack(tmp_path / "pack")
    pack.add("bccd", "neutrophil", "val")
    pack.add("bccd", "lymphocyte", "val")
    for picture in (pack.write() / "bccd" / "images").iterdir():
        picture.write_bytes(b"no picture")
    said = refused("evaluate", "--data", str(pack.root), "--bundle", str(bundle), "--set", "bccd")
    assert "None of the 2 pictures could be read" in said


@pytest.mark.parametrize("options", [(), ("--set", "bccd"), ("--set", "nowhere")])
def test_a_data_set_that_is_not_there(
    refused: Refused, bundle: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    said = refused("evaluate", "--data", str(tmp_path / "none"), "--bundle", str(bundle), *options)
    assert (options or ("", "chula_wbc"))[1] in said


def test_options_that_a_comparison_of_members_would_pass_over(refused: Refused, tmp_path: Path) -> None:
    said = refused(
        "evaluate", "--data", str(tmp_path), "--members", str(tmp_path), "--save", str(tmp_path / "x.json")
    )
    assert "--members does not go with --save" in said


def test_a_broken_bundle_among_the_members(refused: Refused, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (bundle / "manifest.json").write_text("{}", encoding="utf-8")
    assert "manifest" in refused("evaluate", "--data", str(tmp_path), "--members", str(bundle))


def _evaluation(file: Path, profile: Profile) -> Path:
    answer = LabelledCell(
        CellClass.LYMPHOCYTE,
        Prediction(CellClass.LYMPHOCYTE, CallStatus.ACCEPTED, 0.9, 0.1, Rect(0, 0, 9, 9)),
    )
    scores = tuple(
        PictureScore("bccd", f"bccd/images/{n}.png", ImageGroup("bccd", f"g{n}"), (answer,), None, None, None)
        for n in range(40)
    )
    evaluation = Evaluation(EvaluationSubject("drawn 1", "0" * 64, profile, "val", ("bccd",)), scores, ())
    file.write_text(render_evaluation(evaluation), encoding="utf-8")
    return file


def test_a_cell_that_was_measured_twice_is_no_second_witness(
    refused: Refused, bundle: Path, tmp_path: Path
) -> None:
    fast = _evaluation(tmp_path / "fast.json", Profile.FAST)
    accurate = _evaluation(tmp_path / "accurate.json", Profile.ACCURATE)
    both = ["--evaluation", str(fast), "--evaluation", str(accurate)]
    said = refused("models", "threshold", str(bundle), *both, "--risk", "0.05")
    assert "bccd/images/0.png is in more than one evaluation" in said
