"""Classifiers of whole pictures, from the published layouts to the figures of the mean."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.model.errors import UsageError  # noqa: E402
from pipeline.networks.paper import network_1  # noqa: E402
from pipeline.training.command import train  # noqa: E402
from pipeline.training.data.cell_metrics import Confusion  # noqa: E402
from pipeline.training.data.picture_samples import load_pictures  # noqa: E402
from pipeline.training.fit.picture_task import PictureTask  # noqa: E402
from pipeline.training.fit.picture_training import trainable_networks, weighted_f1  # noqa: E402
from pipeline.training.fit.run_folder import recipe_of  # noqa: E402
from pipeline.training.fit.trained_networks import TrainedNetwork  # noqa: E402
from pipeline.training.recipe.overrides import NO_OVERRIDES, Overrides  # noqa: E402
from pipeline.training.recipe.recipes import Kept, LearningRateSchedule, Optimizer, PictureRecipe, read_recipe  # noqa: E402
from tests.support.dataset_trees import (  # noqa: E402
    aml_tree,
    class_tree,
    cnmc_tree,
    preliminary,
)
from tests.support.drawn_pack import DrawnPack  # noqa: E402


@dataclass
class Heard:
    """Keeps the sentences."""

    sentences: list[str] = field(default_factory=list)
    steps: int = 0

    def stepped(self, *_: object) -> None:
        self.steps += 1

    def finished_epoch(self, *_: object) -> None:
        return

    def says(self, sentence: str) -> None:
        self.sentences.append(sentence)


def _small(tmp: Path, name: str, **values: str) -> Path:
    """Write a shipped recipe with a few of its lines replaced; return the file."""
    lines = [
        f"{key} = {values[key]}" if (key := line.split(" = ")[0]) in values else line
        for line in read_recipe(name).text.splitlines()
    ]
    file = tmp / f"{name}.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def _train(
    recipe: str | Path, root: Path, run: Path, overrides: Overrides = NO_OVERRIDES
) -> tuple[tuple[TrainedNetwork, ...], Heard]:
    heard = Heard()
    return train(recipe, root, run, heard, overrides), heard


def _result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


@pytest.fixture(scope="module")
def cnmc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = cnmc_tree(tmp_path_factory.mktemp("cnmc"))
    preliminary(root, "UID_57_29_1_all.bmp,1.bmp,1", "UID_H58_7_2_hem.bmp,2.bmp,0")
    return root


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe of two tiny members, one of them pretrained."""
    return _small(
        tmp_path_factory.mktemp("recipe"), "all-vs-normal",
        members='["network-2", "mobilenet-v2"]', side_px="32", epochs="2", batch="8",
    )  # fmt: skip


@dataclass(frozen=True)
class Made:
    run: Path
    trained: tuple[TrainedNetwork, ...]
    heard: Heard


@pytest.fixture(scope="module")
def made(two: Path, cnmc: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    run = tmp_path_factory.mktemp("runs") / "two"
    return Made(run, *_train(two, cnmc, run))


def test_network_1_is_trained_as_the_paper_says() -> None:
    recipe = read_recipe("paper-network-1")
    assert isinstance(recipe, PictureRecipe)
    assert (len(recipe.classes), recipe.input.side_px, recipe.schedule.epochs) == (15, 200, 15)
    assert (recipe.schedule.optimizer, recipe.schedule.rate) == (
        Optimizer.ADAM,
        LearningRateSchedule.CONSTANT,
    )
    assert (recipe.schedule.learning_rate, recipe.schedule.batch, recipe.schedule.keep) == (
        1e-3,
        32,
        Kept.LAST,
    )
    assert recipe.augment.turn > 0
    assert recipe.augment.zoom > 0
    (trainable,) = trainable_networks(recipe)
    assert sum(parameter.numel() for parameter in trainable.network.parameters()) == 2_164_655
    assert type(trainable.network) is type(network_1(15))


def test_network_2_is_trained_as_the_paper_says() -> None:
    recipe = read_recipe("paper-network-2")
    assert isinstance(recipe, PictureRecipe)
    assert (recipe.schedule.epochs, recipe.schedule.optimizer) == (10, Optimizer.ADAM)
    assert [one.name for one in recipe.classes] == ["ALL", "normal"]
    assert set(vars_of(recipe.augment)) == {0.0}
    (trainable,) = trainable_networks(recipe)
    assert trainable.network.pixel_scale == 1.0


def vars_of(record: object) -> list[float]:
    return [getattr(record, name) for name in record.__slots__]  # type: ignore[attr-defined]


def test_the_published_tree_of_15_classes_is_learnt_from(tmp_path: Path) -> None:
    tree = aml_tree(tmp_path / "data", numbers=(1, 2, 31, 32))
    recipe = _small(tmp_path, "paper-network-1", side_px="64", epochs="2")
    (network,), heard = _train(recipe, tmp_path / "data", tmp_path / "run")
    counts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert counts == {"AML-Cytomorphology_LMU": {"train": 30, "val": 30}}
    assert "30 pictures to learn from, 30 to validate on" in heard.sentences[0]
    assert len(network.history) == 2
    assert network.kept.epoch == 1, "the paper's figures are those of the last epoch"
    inside, _ = _train(recipe, tree, tmp_path / "inside")
    assert inside[0].weights_sha256 == network.weights_sha256


def test_test_pictures_are_measured_but_neither_learnt_from_nor_chosen_by(made: Made) -> None:
    assert "24 pictures to learn from, 12 to validate on, 2 to test on" in made.heard.sentences[0]
    figures = _result(made.run)["figures"]
    assert {(one["split"], one["n"]) for one in figures} == {("val", 12), ("test", 2)}


def test_the_mean_stands_beside_the_members(made: Made) -> None:
    figures = _result(made.run)["figures"]
    assert [one["member"] for one in figures if one["split"] == "val"] == [
        "network-2",
        "mobilenet-v2",
        "mean",
    ]
    for one in figures:
        assert np.array(one["confusion"]).sum() == one["n"]
        assert one["accuracy"] == pytest.approx(np.trace(one["confusion"]) / one["n"], abs=1e-4)
        assert 0 <= one["weighted_f1"] <= 1
    assert [one.name for one in made.trained] == ["network-2", "mobilenet-v2"]


def test_the_run_folder_says_what_it_was_made_from(made: Made, two: Path) -> None:
    provenance = json.loads((made.run / "provenance.json").read_text())
    assert provenance["recipe_sha256"] == read_recipe(two).digest
    assert provenance["seed"] == read_recipe(two).seed
    assert provenance["software"]["torch"] == torch.__version__
    assert provenance["data"]["C-NMC_2019"]["rows"] == 38
    assert (made.run / "recipe.toml").read_text() == two.read_text()
    for name in ("network-2", "mobilenet-v2"):
        assert len(json.loads((made.run / name / "history.json").read_text())) == 2
        curves = cv2.imread(str(made.run / name / "curves.png"))
        assert curves.shape[1] > 1.8 * curves.shape[0], "two panels beside each other"
        assert (made.run / name / "curves.png").stat().st_size < 60_000


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    made: Made, two: Path, cnmc: Path, tmp_path: Path
) -> None:
    again, _ = _train(two, cnmc, tmp_path / "again")
    other, _ = _train(two, cnmc, tmp_path / "other", Overrides(seed=5))
    digests = [one.weights_sha256 for one in made.trained]
    assert [one.weights_sha256 for one in again] == digests
    assert not {one.weights_sha256 for one in other} & set(digests)
    assert _result(tmp_path / "again")["networks"] == _result(made.run)["networks"]


def test_the_recipe_of_a_run_trains_the_same_again(two: Path, cnmc: Path, tmp_path: Path) -> None:
    first, _ = _train(two, cnmc, tmp_path / "first", Overrides(epochs=1, seed=8))
    again, _ = _train(tmp_path / "first" / "recipe.toml", cnmc, tmp_path / "again")
    assert [one.weights_sha256 for one in again] == [one.weights_sha256 for one in first]


def test_other_data_in_the_same_run_folder_are_refused(two: Path, tmp_path: Path) -> None:
    root = cnmc_tree(tmp_path / "data")
    _train(two, root, tmp_path / "run", Overrides(epochs=1))
    (root / "C-NMC_training_data" / "fold_1" / "all" / "UID_4_7_1_all.bmp").unlink()
    with pytest.raises(UsageError, match="data have changed since the run was started"):
        _train(two, root, tmp_path / "run", Overrides(epochs=1))
    with pytest.raises(UsageError, match="another recipe"):
        _train(two, root, tmp_path / "run", Overrides(epochs=2))


def test_a_corrupt_picture_is_left_out_counted_and_named(two: Path, tmp_path: Path) -> None:
    root = cnmc_tree(tmp_path / "data")
    broken = root / "C-NMC_training_data" / "fold_1" / "all" / "UID_4_7_1_all.bmp"
    broken.write_bytes(broken.read_bytes()[:40])
    _, heard = _train(two, root, tmp_path / "run", Overrides(epochs=1))
    assert any("UID_4_7_1_all.bmp" in sentence for sentence in heard.sentences)
    assert any("23 pictures to learn from" in sentence for sentence in heard.sentences)
    assert _result(tmp_path / "run")["unreadable"] == ["UID_4_7_1_all.bmp"]


def test_a_folder_for_each_class_can_be_learnt_from(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(10)]
    class_tree(tmp_path / "data" / "ours", {"lymphoblast": names, "normal_leukocyte": names})
    recipe = _small(tmp_path, "paper-network-2", side_px="16", epochs="1")
    _, heard = _train(recipe, tmp_path / "data", tmp_path / "run", Overrides(folders=("ours",)))
    assert "16 pictures to learn from, 4 to validate on" in heard.sentences[0]


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(6)]
    class_tree(tmp_path / "data" / "ours", {"lymphoblast": names, "strange": names})
    recipe = _small(tmp_path, "paper-network-2", side_px="16", epochs="1")
    with pytest.raises(UsageError, match="normal"):
        _train(recipe, tmp_path / "data", tmp_path / "run", Overrides(folders=("ours",)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", ["cnmc", "all_idb2", "nowhere"])
def test_missing_data_are_a_sentence_and_leave_no_folder(folder: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "pbc_barcelona").mkdir(parents=True)
    (tmp_path / "data" / "pbc_barcelona" / "labels.csv").write_text("path\n")
    for root in (tmp_path / "none", tmp_path / "data"):
        with pytest.raises(UsageError):
            _train("paper-network-2", root, tmp_path / "run", Overrides(folders=(folder,)))
    assert not (tmp_path / "run").exists()


def test_no_bundle_is_made_of_classifiers_of_pictures(made: Made) -> None:
    with pytest.raises(UsageError, match="no bundle"):
        recipe_of(made.run)


def test_runs_on_research_data_say_so(shared_data: Path, two: Path, tmp_path: Path) -> None:
    _, heard = _train(two, shared_data, tmp_path / "run", Overrides(epochs=1, folders=("all_idb2",)))
    assert "must not be shipped" in (tmp_path / "run" / "RESEARCH_ONLY.txt").read_text()
    assert "116 pictures to learn from, 24 to validate on" in heard.sentences[0]


def test_shippable_data_leave_no_such_note(made: Made) -> None:
    assert not (made.run / "RESEARCH_ONLY.txt").exists()


def test_folds_validate_on_every_picture_once(shared_data: Path, tmp_path: Path) -> None:
    counts = []
    for number in (1, 2, 3):
        overrides = Overrides(epochs=1, fold=f"{number}/3", folders=("cnmc",))
        recipe = _small(tmp_path, "paper-network-2", side_px="16", epochs="1")
        _train(recipe, shared_data, tmp_path / str(number), overrides)
        (figures,) = _result(tmp_path / str(number))["figures"]
        counts.append(np.array(figures["confusion"]).sum(axis=1))
    assert np.sum(counts, axis=0).tolist() == [20, 19]
    assert all(count.min() >= 4 for count in counts)


def test_an_epoch_shows_every_picture_once_in_another_order() -> None:
    recipe = read_recipe("paper-network-2")
    assert isinstance(recipe, PictureRecipe)
    samples = load_pictures((), 8)
    numbered = replace(
        samples,
        pixels=np.arange(70, dtype=np.uint8)[:, None, None, None].repeat(3, 3).repeat(2, 1).repeat(2, 2),
        class_indices=np.arange(70) % 2,
    )
    task = PictureTask(recipe, numbered, numbered)
    shown = [
        [int(value) for batch in task.batches(7, epoch) for value in batch.rgb[:, 0, 0, 0]]
        for epoch in (0, 1, 0)
    ]
    assert sorted(shown[0]) == sorted(shown[1]) == list(range(70))
    assert shown[0] == shown[2] != shown[1]


def test_weighted_f1_is_that_of_the_challenge() -> None:
    table = Confusion(("ALL", "normal"), ((8, 2), (1, 3)))
    first, second = 2 * 8 / (10 + 9), 2 * 3 / (4 + 5)
    assert weighted_f1(table) == pytest.approx((10 * first + 4 * second) / 14)
    assert weighted_f1(Confusion(("a", "b"), ((0, 0), (0, 0)))) == 0.0


def test_the_real_cells_are_read(shared_data: Path, tmp_path: Path) -> None:
    recipe = _small(tmp_path, "paper-network-1", side_px="64", epochs="1")
    _, heard = _train(recipe, shared_data, tmp_path / "run")
    assert "70 pictures to learn from, 15 to validate on" in heard.sentences[0]
    shutil.rmtree(tmp_path / "run")


def test_two_sets_of_the_same_patients_without_names_are_refused(tmp_path: Path) -> None:
    aml_tree(tmp_path / "data" / "published", [1])
    pack = DrawnPack(tmp_path / "data")
    pack.add("aml_lmu", "basophil", "train")
    pack.write()
    overrides = Overrides(folders=("aml_lmu", "published"))
    with pytest.raises(UsageError, match="show the same patients and name none"):
        _train("paper-network-1", tmp_path / "data", tmp_path / "run", overrides)
