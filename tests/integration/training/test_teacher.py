"""A segmenter that learns what another one draws."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from pipeline.model.errors import UsageError  # noqa: E402
from pipeline.training.command import train  # noqa: E402
from pipeline.training.fit.self_training import teacher_in  # noqa: E402
from pipeline.training.fit.training_loop import weights_digest  # noqa: E402
from pipeline.training.recipe.overrides import Overrides  # noqa: E402
from pipeline.training.recipe.recipes import read_recipe  # noqa: E402

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
    overrides = Overrides(teacher=teacher_in(teacher))
    (unet,) = train(_recipe(tmp_path, "unet"), small_pack, tmp_path / "run", heard, overrides)
    assert unet.name == "unet"
    assert any("pseudo-labels added to" in sentence for sentence in heard.sentences)
    weights = load_file(teacher / "light-unet" / "best.safetensors")
    told = (tmp_path / "run" / "recipe.toml").read_text()
    assert f'teacher = "light-unet {weights_digest(weights)}"' in told


def test_where_a_teacher_lies_is_no_part_of_the_recipe(
    small_pack: Path, teacher: Path, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(teacher, tmp_path / "elsewhere" / "again")
    recipe = _recipe(tmp_path, "unet")
    heard = Heard()
    train(recipe, small_pack, tmp_path / "run", heard, Overrides(teacher=teacher_in(teacher)))
    train(recipe, small_pack, tmp_path / "run", heard, Overrides(teacher=teacher_in(elsewhere)))
    texts = [file.read_text() for file in (tmp_path / "run").iterdir() if file.suffix in (".json", ".toml")]
    assert not any(place.as_posix() in text for place in (teacher, elsewhere) for text in texts)


def test_another_teacher_makes_another_recipe(teacher: Path, tmp_path: Path) -> None:
    other = shutil.copytree(teacher, tmp_path / "other")
    file = other / "light-unet" / "best.safetensors"
    save_file({name: tensor * 0.5 for name, tensor in load_file(file).items()}, file)
    one, two = (read_recipe("unet", Overrides(teacher=teacher_in(run))) for run in (teacher, other))
    assert one.digest != two.digest


def test_a_recipe_that_tells_a_teacher_asks_for_it(small_pack: Path, teacher: Path, tmp_path: Path) -> None:
    file = tmp_path / "taught.toml"
    file.write_text(read_recipe(_recipe(tmp_path, "unet"), Overrides(teacher=teacher_in(teacher))).text)
    with pytest.raises(UsageError, match="the teacher light-unet; give"):
        train(file, small_pack, tmp_path / "run", Heard())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["ensemble-leukocytes", "paper-network-2"])
def test_only_a_segmenter_learns_from_a_teacher(teacher: Path, name: str) -> None:
    with pytest.raises(UsageError, match="Only a segmenter"):
        read_recipe(name, Overrides(teacher=teacher_in(teacher)))


def test_a_teacher_brings_back_nothing_that_is_left_out(
    small_pack: Path, teacher: Path, tmp_path: Path
) -> None:
    overrides = Overrides(teacher=teacher_in(teacher), leave_out=("zheng_d1_jtsc",))
    with pytest.raises(UsageError, match="zheng_d1_jtsc"):
        train(_recipe(tmp_path, "unet"), small_pack, tmp_path / "run", Heard(), overrides)


def test_what_is_no_run_of_a_segmenter_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        teacher_in(tmp_path / "nowhere")
