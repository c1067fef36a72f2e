"""A training of two steps, resumed, exported into a bundle and evaluated: the whole way on drawn cells."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.bundle.manifest import FILE_NAME, BundleManifest  # noqa: E402
from pipeline.model.errors import UsageError  # noqa: E402
from pipeline.model.taxonomy import LEAVES  # noqa: E402
from pipeline.training.command import evaluate, export_bundle, train  # noqa: E402
from pipeline.training.export.bundle_export import BundleName, Runs  # noqa: E402
from pipeline.training.fit.progress import EpochRecord  # noqa: E402
from pipeline.training.recipe.recipes import read_recipe  # noqa: E402
from tests.support.drawn_pack import MEMBER_TABLES, DrawnPack  # noqa: E402

pytestmark = pytest.mark.long

FOLDERS = 'folders = ["zheng_d1_jtsc", "pbc_barcelona"]'


@dataclass
class Heard:
    """Keeps what a training says."""

    steps: int = 0
    epochs: list[tuple[str, EpochRecord]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def stepped(self, *_: object) -> None:
        self.steps += 1

    def finished_epoch(self, network: str, record: EpochRecord, *_: object) -> None:
        self.epochs.append((network, record))

    def says(self, sentence: str) -> None:
        self.sentences.append(sentence)


def _small(name: str, epochs: int) -> str:
    lines = []
    keep = True
    for line in read_recipe(name).text.splitlines():
        key = line.split(" = ")[0]
        small = {
            "side_px": "side_px = 32", "epochs": f"epochs = {epochs}", "batch": "batch = 4",
            "student_epochs": f"student_epochs = {epochs}", "encoder": 'encoder = "mobilenet-v2"',
            "samples_per_epoch": "samples_per_epoch = 8", "members": 'members = ["mobilenet-v2"]',
            "folders": FOLDERS,
        }  # fmt: skip
        if keep:
            lines.append(small.get(key, line))
        keep = not (key == "folders" and line.endswith("[")) if keep else line == "]"
    return MEMBER_TABLES.sub("", "\n".join(lines) + "\n")


def _recipe(tmp: Path, name: str, epochs: int) -> Path:
    file = tmp / f"{name}-{epochs}.toml"
    file.write_text(_small(name, epochs))
    return file


@dataclass(frozen=True)
class Made:
    """What the module's one training left."""

    runs: Runs
    bundle: Path
    manifest: BundleManifest
    heard: Heard


@pytest.fixture(scope="module")
def made(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    tmp = tmp_path_factory.mktemp("training")
    heard = Heard()
    runs = Runs((tmp / "segmenter",), tmp / "classifier")
    train(_recipe(tmp, "light-unet", 1), small_pack, runs.segmenters[0], heard)
    train(_recipe(tmp, "ensemble-leukocytes", 1), small_pack, runs.classifier, heard)
    bundle = tmp / "bundle"
    manifest = export_bundle(runs, small_pack, bundle, BundleName("drawn", "1"))
    return Made(runs, bundle, manifest, heard)


def test_training_tells_steps_and_epochs_and_leaves_history_and_curves(made: Made) -> None:
    assert made.heard.steps == 6
    learnt = [name for name, _ in made.heard.epochs]
    assert learnt == ["light-unet-teacher", "light-unet", "mobilenet-v2"]
    folder = made.runs.segmenters[0] / "light-unet"
    (record,) = json.loads((folder / "history.json").read_text())
    assert record["train_loss"] > 0
    assert 0 <= record["val_accuracy"] <= 1
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_bundle_says_what_it_is_and_its_digests_hold(made: Made) -> None:
    manifest = BundleManifest.parse((made.bundle / FILE_NAME).read_text())
    assert manifest == made.manifest
    assert manifest.classes == tuple(str(leaf) for leaf in LEAVES)
    entries = [*manifest.segmenter.members, *manifest.classifier.members]
    for entry in entries:
        assert hashlib.sha256((made.bundle / entry.file).read_bytes()).hexdigest() == entry.sha256
    assert {path.name for path in made.bundle.iterdir()} == {FILE_NAME, *(entry.file for entry in entries)}
    assert [(entry.folder, entry.train_images, entry.val_images) for entry in manifest.data_sets] == [
        ("zheng_d1_jtsc", 4, 2),
        ("pbc_barcelona", 6, 3),
    ]


def test_evaluation_reports_every_set_and_repeats(made: Made, small_pack: Path) -> None:
    report = evaluate(made.bundle, small_pack)
    document = json.loads(report.to_json())
    assert {part["data_set"] for part in document["classification"]} == {
        "zheng_d1_jtsc",
        "pbc_barcelona",
        "all",
    }
    assert {part["member"] for part in document["classification"]} == {"mobilenet-v2", "ensemble"}
    (segmented,) = document["segmentation"]
    assert (segmented["data_set"], segmented["n"]) == ("zheng_d1_jtsc", 2)
    assert 0 <= segmented["cell_iou"] <= segmented["cell_dice"] <= 1
    assert report == evaluate(made.bundle, small_pack)
    told = {(figure.data_set, figure.measure): figure.value for figure in made.manifest.figures}
    assert told["zheng_d1_jtsc", "cell_dice"] == pytest.approx(segmented["cell_dice"], abs=1e-4)


def test_sets_without_a_cell_or_a_nucleus_leave_their_figures_out(made: Made, tmp_path: Path) -> None:
    pack = DrawnPack(tmp_path)
    pack.add("zheng_d1_jtsc", "neutrophil", "train", mask_path="masks/000.png")
    pack.add("pbc_barcelona", "platelet", "train")
    empty = evaluate(made.bundle, pack.write())
    assert (empty.classification, empty.segmentation, empty.scores()) == ((), (), [])
    pack.add("zheng_d1_jtsc", "neutrophil", "val", mask_path="masks/001.png")
    pack.add("pbc_barcelona", "platelet", "val")
    mask = tmp_path / "zheng_d1_jtsc" / "masks" / "001.png"
    cv2.imwrite(str(mask), np.minimum(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE), 128))
    report = evaluate(made.bundle, pack.write())
    document = json.loads(report.to_json(), parse_constant=pytest.fail)
    (segmented,) = document["segmentation"]
    assert (segmented["nucleus_dice"], segmented["nucleus_iou"]) == (None, None)
    platelets = [part for part in document["classification"] if part["data_set"] == "pbc_barcelona"]
    assert {(part["n"], part["group_accuracy"], part["not_cells"]) for part in platelets} == {(0, None, 1)}
    measures = {measure for data_set, measure, _ in report.scores() if data_set == "pbc_barcelona"}
    assert measures == {"not_cells_accuracy"}


def test_a_side_of_the_split_that_shows_nothing_is_one_sentence(tmp_path: Path) -> None:
    pack = DrawnPack(tmp_path / "pack")
    for label, split in (("neutrophil", "train"), ("mixed", "val")):
        pack.add("zheng_d1_jtsc", label, split, mask_path="masks/000.png")
        pack.add("pbc_barcelona", "platelet", "train")
    pack.rows["zheng_d1_jtsc"][1]["mask_path"] = ""
    pack.write()
    for name, told in (("light-unet", "no picture with masks or boxes to validate on"),
                       ("ensemble-leukocytes", "no labelled cell to validate on")):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            train(_recipe(tmp_path, name, 1), pack.root, tmp_path / name, Heard())


def test_a_finished_run_is_not_trained_again(made: Made, small_pack: Path) -> None:
    best = made.runs.segmenters[0] / "light-unet" / "best.safetensors"
    before = best.stat().st_mtime_ns
    recipe = made.runs.segmenters[0] / "recipe.toml"
    heard = Heard()
    trained = train(recipe, small_pack, made.runs.segmenters[0], heard)
    assert heard.steps == 0
    assert [(one.name, len(one.history)) for one in trained] == [("light-unet-teacher", 1), ("light-unet", 1)]
    assert best.stat().st_mtime_ns == before


def test_a_run_folder_of_another_recipe_is_not_overwritten(made: Made, small_pack: Path) -> None:
    with pytest.raises(UsageError, match="another recipe"):
        train("light-unet", small_pack, made.runs.segmenters[0], Heard())


def test_export_needs_finished_runs_of_the_right_kind(made: Made, small_pack: Path, tmp_path: Path) -> None:
    swapped = Runs((made.runs.classifier,), made.runs.segmenters[0])
    with pytest.raises(UsageError):
        export_bundle(swapped, small_pack, tmp_path / "out", BundleName("x", "1"))
    with pytest.raises(UsageError, match="no training run"):
        export_bundle(Runs((tmp_path,), tmp_path), small_pack, tmp_path / "out", BundleName("x", "1"))


def test_no_bundle_no_evaluation(tmp_path: Path, small_pack: Path) -> None:
    with pytest.raises(UsageError, match="no model bundle"):
        evaluate(tmp_path, small_pack)
