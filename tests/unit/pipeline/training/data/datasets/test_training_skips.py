"""A training goes on without an unreadable picture, says so, and writes it down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from pipeline.model.errors import UsageError  # noqa: E402
from pipeline.training.command import train  # noqa: E402
from pipeline.training.fit.progress import EpochRecord  # noqa: E402
from pipeline.training.recipe.recipes import read_recipe  # noqa: E402
from tests.support.drawn_pack import DrawnPack, boxes  # noqa: E402

SMALL = {
    "side_px": "32",
    "epochs": "1",
    "student_epochs": "0",
    "batch": "2",
    "samples_per_epoch": "2",
    "encoder": '"mobilenet-v2"',
    "folders": '["pbc_barcelona"]',
}


class Told:
    """Keeps the sentences."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def stepped(self, network: str, epoch: int, step: int, steps: int) -> None: ...

    def finished_epoch(self, network: str, record: EpochRecord, epochs: int) -> None: ...

    def says(self, sentence: str) -> None:
        self.sentences.append(sentence)


def _recipe(folder: Path) -> Path:
    """The shipped recipe for light U-Nets, made small; lists over several lines become one."""
    lines: list[str] = []
    inside = False
    for line in read_recipe("light-unet").text.splitlines():
        key = line.split(" = ")[0]
        if not inside:
            lines.append(f"{key} = {SMALL[key]}" if key in SMALL else line)
            inside = key in SMALL and line.endswith("[")
        else:
            inside = line != "]"
    file = folder / "small.toml"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    drawn = DrawnPack(tmp_path / "pack")
    for _ in range(3):
        drawn.add("pbc_barcelona", "basophil", "train")
    drawn.add("pbc_barcelona", "basophil", "val", boxes_json=boxes(("WBC", 24, 24, 72, 72)))
    return drawn.write()


def test_an_unreadable_picture_is_told_and_written_down(pack: Path, tmp_path: Path) -> None:
    (pack / "pbc_barcelona" / "images" / "001.png").write_bytes(b"\x89PNG")
    told = Told()
    train(_recipe(tmp_path), pack, tmp_path / "run", told)
    assert "1 picture was skipped, unreadable: 001.png" in told.sentences
    assert "2 pictures to learn from, 1 to validate on" in told.sentences
    assert json.loads((tmp_path / "run" / "result.json").read_text())["unreadable"] == ["001.png"]
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {
        "pbc_barcelona": {"train": 2, "val": 1}
    }


def test_a_copy_in_val_ends_the_training_before_it_begins(pack: Path, tmp_path: Path) -> None:
    images = pack / "pbc_barcelona" / "images"
    (images / "003.png").write_bytes((images / "000.png").read_bytes())
    with pytest.raises(UsageError, match=r"leaks: 000\.png in train and 003\.png in val"):
        train(_recipe(tmp_path), pack, tmp_path / "run", Told())
    assert not (tmp_path / "run").exists()
