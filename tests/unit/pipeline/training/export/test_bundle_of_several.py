"""A bundle of two segmenters and a classifier, made of runs whose weights are as they were drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from pipeline.bundle.manifest import BundleManifest, Profile  # noqa: E402
from pipeline.model.errors import UsageError  # noqa: E402
from pipeline.networks.classifiers import LeukocyteClassifier  # noqa: E402
from pipeline.runtime.bundle_loader import load_bundle  # noqa: E402
from pipeline.runtime.engines.onnxruntime_engine import onnx_runtime  # noqa: E402
from pipeline.runtime.graph_networks import GraphClassifier, GraphSegmenter  # noqa: E402
from pipeline.training.export.bundle_export import BundleName, ExportOptions, Runs, write_bundle  # noqa: E402
from pipeline.training.fit.training_loop import weights_digest  # noqa: E402
from pipeline.training.recipe.recipes import ClassifierRecipe, SegmenterRecipe, parse_recipe, read_recipe  # noqa: E402
from tests.support.drawn_pack import MEMBER_TABLES  # noqa: E402

pytestmark = pytest.mark.long

SEEN = {
    "light-unet": {"draaslan": {"train": 5, "val": 1}, "bccd": {"train": 9, "val": 1}},
    "cenet": {"bccd": {"train": 3, "val": 2}},
    "ensemble-leukocytes": {"bccd": {"train": 3, "val": 2}},
}
"""images that each run learnt from, by data set"""


def _run(folder: Path, name: str, **changes: str) -> Path:
    text = read_recipe(name).text
    for old, new in changes.items():
        lines = [new if line.startswith(f"{old} = ") else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    text = MEMBER_TABLES.sub("", text)
    recipe = parse_recipe(text)
    torch.manual_seed(1)
    if isinstance(recipe, SegmenterRecipe):
        networks = {recipe.name: recipe.network.build()}
    else:
        assert isinstance(recipe, ClassifierRecipe)
        networks = {
            one.name: LeukocyteClassifier(one.backbone, colours=one.colours) for one in recipe.members
        }
    for network, module in networks.items():
        (folder / network).mkdir(parents=True)
        save_file(module.state_dict(), folder / network / "best.safetensors")
    (folder / "recipe.toml").write_text(text)
    (folder / "run.json").write_text(json.dumps(SEEN[name]))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    light = _run(folder / "light", "light-unet", side_px="side_px = 32", encoder='encoder = "mobilenet-v2"')
    cenet = _run(folder / "cenet", "cenet", side_px="side_px = 64", width="width = 8")
    classifier = _run(
        folder / "ensemble",
        "ensemble-leukocytes",
        side_px="side_px = 32",
        members='members = ["mobilenet-v2"]',
    )
    return Runs((light, cenet), classifier)


@pytest.fixture(scope="module")
def made(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BundleManifest]:
    folder = tmp_path_factory.mktemp("bundle")
    return folder, write_bundle(runs, folder, BundleName("drawn", "2"), 1.5, ExportOptions(views=2))


def test_the_light_one_is_fast_and_all_are_accurate(made: tuple[Path, BundleManifest]) -> None:
    folder, manifest = made
    assert [member.name for member in manifest.segmenters(Profile.FAST)] == ["light-unet"]
    assert [member.name for member in manifest.segmenters(Profile.ACCURATE)] == ["cenet", "light-unet"]
    assert (manifest.stride_px(Profile.FAST), manifest.stride_px(Profile.ACCURATE)) == (16, 32)
    assert manifest.classifier.views == 2
    assert BundleManifest.parse((folder / "manifest.json").read_text()) == manifest
    for member in manifest.members:
        assert (folder / member.file).stat().st_size < 3 * member.parameters, "weights take two bytes each"


def test_each_network_names_its_recipe_and_its_weights(made: tuple[Path, BundleManifest], runs: Runs) -> None:
    _, manifest = made
    recipes = {entry.sha256: entry.name for entry in manifest.recipes}
    heavy, light = manifest.segmenter.members
    assert [recipes[member.recipe_sha256] for member in (heavy, light)] == ["cenet", "light-unet"]
    recipe = parse_recipe((runs.segmenters[1] / "recipe.toml").read_text())
    assert isinstance(recipe, SegmenterRecipe)
    torch.manual_seed(1)
    assert heavy.weights_sha256 == weights_digest(recipe.network.build().state_dict())


def test_both_profiles_run_and_differ(made: tuple[Path, BundleManifest]) -> None:
    folder, _ = made
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    answers = [
        GraphSegmenter(load_bundle(folder, profile), onnx_runtime(1)).segment(batch) for profile in Profile
    ]
    for answer in answers:
        assert answer.shape == (2, 3, 64, 96)
        assert np.allclose(answer.sum(axis=1), 1, atol=1e-4)
    assert not np.allclose(*answers, atol=1e-3)
    classifier = GraphClassifier(load_bundle(folder), onnx_runtime(1))
    crops = batch[:, :32, :32]
    assert np.allclose(classifier.classify(crops), classifier.classify(crops[:, :, ::-1]), atol=1e-4)


def test_a_set_that_several_runs_saw_counts_with_the_most_images(made: tuple[Path, BundleManifest]) -> None:
    _, manifest = made
    counts = {entry.folder: (entry.train_images, entry.val_images) for entry in manifest.data_sets}
    assert counts == {"draaslan": (5, 1), "bccd": (9, 2)}


def test_runs_that_make_no_bundle_are_a_sentence(runs: Runs, tmp_path: Path) -> None:
    light, cenet = runs.segmenters
    for segmenters in ((cenet,), (light, light), (light, cenet, cenet), (light, runs.classifier)):
        with pytest.raises(UsageError) as caught:
            write_bundle(replace(runs, segmenters=segmenters), tmp_path, BundleName("x", "1"), 1.0)
        assert caught.value.code == "wrong_run"
    with pytest.raises(UsageError, match="1, 2, 4, not 3"):
        write_bundle(runs, tmp_path, BundleName("x", "1"), 1.0, ExportOptions(views=3))
    assert list(tmp_path.iterdir()) == []
