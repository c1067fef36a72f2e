"""`leukoflow train`: a mistake is one line and exit code 2; what is changed is kept with the run."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch")

from pipeline.training.recipe.recipes import read_recipe
from tests.support.dataset_trees import class_tree, cnmc_tree
from tests.support.drawn_pack import DrawnPack
from worker.cli import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return cnmc_tree(tmp_path / "data", subjects=2)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    text = read_recipe("paper-network-2").text
    file = tmp_path / "small.toml"
    file.write_text(text.replace("side_px = 200", "side_px = 16").replace("epochs = 10", "epochs = 3"))
    return file


def _train(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["leukoflow", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_recipe_is_trained_with_what_was_changed(
    data: Path,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    options = ("--epochs", 2, "--seed", 5, "--fold", "1/2")
    assert _train(monkeypatch, small, "--data", data, "--run", run, *options) == 0
    told = capsys.readouterr().out
    assert "network-2 2/2: loss" in told
    assert "12 pictures to learn from, 12 to validate on" in told
    assert "weighted F1" in told
    kept = read_recipe(run / "recipe.toml")
    assert (kept.seed, kept.schedule.epochs) == (5, 2)
    assert json.loads((run / "provenance.json").read_text())["recipe_sha256"] == kept.digest
    (network,) = json.loads((run / "result.json").read_text())["networks"]
    assert network["epochs"] == 2
    assert network["weights_sha256"][:12] in told


def _one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("leukoflow: ")
    assert len(error.splitlines()) == 1
    return error


@pytest.mark.parametrize(
    ("recipe", "options", "told"),
    [
        ("no-such-recipe", (), "no-such-recipe"),
        ("paper-network-2", ("--folder", "nowhere"), "nowhere"),
        ("paper-network-2", ("--leave-out", "bccd"), "bccd"),
        ("paper-network-2", ("--fold", "9/3"), "9/3"),
        ("paper-network-1", (), "aml_lmu"),
        ("ensemble-leukocytes", ("--fold", "1/3"), "whole pictures"),
        ("ensemble-leukocytes", (), "pbc_barcelona"),
    ],
)
def test_a_mistake_is_one_line(
    recipe: str,
    options: tuple[str, ...],
    told: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert _train(monkeypatch, recipe, "--data", data, "--run", run, *options) == 2
    assert told in _one_line(capsys)
    assert not run.exists()


def test_a_missing_data_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(monkeypatch, "paper-network-2", "--data", tmp_path / "none", "--run", tmp_path / "run") == 2
    assert "none" in _one_line(capsys)


def test_an_empty_class_is_one_line(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_tree(tmp_path / "ours", {"lymphoblast": ["1.png", "2.png"], "else": ["1.png", "2.png"]})
    options = ("--data", root.parent, "--folder", "ours", "--run", tmp_path / "run")
    assert _train(monkeypatch, small, *options) == 2
    assert "normal" in _one_line(capsys)


@pytest.mark.parametrize("side", ["group", "subject"])
def test_a_subject_on_both_sides_is_one_line(
    side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = DrawnPack(tmp_path / "data")
    for split in ("train", "val"):
        pack.add("zheng_d1_jtsc", "neutrophil", split, **{side: "same"})
    options = ("--data", pack.write(), "--folder", "zheng_d1_jtsc", "--run", tmp_path / "run")
    assert _train(monkeypatch, "ensemble-leukocytes", *options) == 2
    assert f"zheng_d1_jtsc leaks: a {side} has images in train and in val" in _one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["ensemble-leukocytes", "paper-network-2"])
def test_a_folder_of_another_layout_is_one_line(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "bccd" / "deep" / "deeper").mkdir(parents=True)
    options = ("--data", tmp_path / "data", "--folder", "bccd", "--run", tmp_path / "run")
    assert _train(monkeypatch, recipe, *options) == 2
    assert "bccd" in _one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["unet", "ensemble-leukocytes"])
def test_a_teacher_that_is_no_run_is_one_line(
    recipe: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--data", data, "--run", tmp_path / "run", "--teacher", tmp_path / "nowhere")
    assert _train(monkeypatch, recipe, *options) == 2
    assert "nowhere" in _one_line(capsys)


def test_a_run_of_another_recipe_is_not_overwritten(
    data: Path,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (small, "--data", data, "--run", tmp_path / "run")
    assert _train(monkeypatch, *arguments, "--epochs", 1) == 0
    capsys.readouterr()
    assert _train(monkeypatch, *arguments, "--epochs", 2) == 2
    assert "another recipe" in _one_line(capsys)


def test_tensorboard_is_written_or_asked_for(
    data: Path,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    ended = _train(monkeypatch, small, "--data", data, "--run", run, "--epochs", 1, "--tensorboard")
    if find_spec("tensorboard") is None:
        assert ended == 2
        assert "leukoflow[tensorboard]" in _one_line(capsys)
        assert not run.exists()
    else:
        assert ended == 0
        (events,) = (run / "tensorboard" / "network-2").iterdir()
        assert b"accuracy/val" in events.read_bytes()
