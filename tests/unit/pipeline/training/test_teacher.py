"""A segmenter that learns what another one draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from pipeline.errors import UsageError  # noqa: E402
from pipeline.training.command import train  # noqa: E402
from pipeline.training.overrides import Overrides  # noqa: E402
from pipeline.training.recipes import read_recipe  # noqa: E402

SMALL = {
    r"^side_px = .*$": "side_px = 32",
    r"^(epochs|student_epochs) = .*$": r"\1 = 1",
    r"^batch = .*$": "batch = 4",
    r"^samples_per_epoch = .*$": "samples_per_epoch = 8",
    r"^encoder = .*$": 'encoder = "mobilenet-v2"',
    r"^width = .*$": "width = 4",
    r"(?s)^folders = \[.*?\]": 'folders = ["zheng_d1_jtsc", "pbc_barcelona"]',
}


class Heard:
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def stepped(self, *_: object) -> None: ...

    def finished_epoch(self, *_: object) -> None: ...

    def says(self, sentence: str) -> None:
        self.sentences.append(sentence)


def _recipe(folder: Path, name: str) -> Path:
    text = read_recipe(name).text
    for pattern, small in SMALL.items():
        text = re.sub(pattern, small, text, flags=re.MULTILINE)
    file = folder / f"{name}.toml"
    file.write_text(text)
    return file


@pytest.fixture(scope="module")
def teacher(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    networks = train(_recipe(folder, "light-unet"), small_pack, folder / "run", Heard())
    assert [network.name for network in networks] == ["light-unet-teacher", "light-unet"]
    return folder / "run"


def test_a_student_learns_from_the_run_it_is_given(small_pack: Path, teacher: Path, tmp_path: Path) -> None:
    heard = Heard()
    overrides = Overrides(teacher=str(teacher))
    (unet,) = train(_recipe(tmp_path, "unet"), small_pack, tmp_path / "run", heard, overrides)
    assert unet.name == "unet"
    assert any("the teacher drew cells in" in sentence for sentence in heard.sentences)
    assert str(teacher) in (tmp_path / "run" / "recipe.toml").read_text()


def test_a_teacher_brings_back_nothing_that_is_left_out(
    small_pack: Path, teacher: Path, tmp_path: Path
) -> None:
    overrides = Overrides(teacher=str(teacher), leave_out=("zheng_d1_jtsc",))
    with pytest.raises(UsageError, match="zheng_d1_jtsc"):
        train(_recipe(tmp_path, "unet"), small_pack, tmp_path / "run", Heard(), overrides)


def test_what_is_no_run_of_a_segmenter_teaches_nothing(small_pack: Path, tmp_path: Path) -> None:
    overrides = Overrides(teacher=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere"):
        train(_recipe(tmp_path, "unet"), small_pack, tmp_path / "run", Heard(), overrides)
