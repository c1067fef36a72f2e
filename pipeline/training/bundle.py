"""Writes a bundle: the best weights of two runs as ONNX files, and the manifest that tells all about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from pipeline.domain import Probabilities
from pipeline.errors import UsageError
from pipeline.manifest import (
    FILE_NAME,
    BundleManifest,
    ClassifierEntry,
    DataEntry,
    Figure,
    MemberEntry,
    RecipeEntry,
    SegmenterEntry,
)
from pipeline.networks.classifiers import LeukocyteClassifier
from pipeline.networks.light_unet import STRIDE_PX, LightUNet
from pipeline.taxonomy import LEAVES
from pipeline.training.export import OPSET, ExportShape, export_onnx
from pipeline.training.loop import BEST_FILE
from pipeline.training.recipes import ClassifierRecipe, PictureRecipe, SegmenterRecipe, parse_recipe
from pipeline.training.sources import source_of

RUN_FILE = "run.json"
RECIPE_FILE = "recipe.toml"
SEGMENTER_FILE = "segmenter.onnx"
_SOFTWARE = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "opencv-python-headless")
TEMPERATURES = tuple(float(value) for value in np.round(np.geomspace(1.0, 3.0, 23), 3))
"""Never below 1: val has the laboratories of train, and strange ones deserve no more certainty than that."""


@dataclass(frozen=True, slots=True)
class BundleName:
    """What a bundle is called; its folder is `<name>-<version>`."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Runs:
    """The two finished runs that a bundle is made of."""

    segmenter: Path
    classifier: Path


def recipe_of(run_dir: Path) -> SegmenterRecipe | ClassifierRecipe:
    """Return the recipe that a run folder was made with.

    Raises: UsageError, where it is no run, or one of classifiers of whole pictures: those never ship.
    """
    try:
        recipe = parse_recipe((run_dir / RECIPE_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"'{run_dir.name}' holds no training run.", code="no-run") from error
    if isinstance(recipe, PictureRecipe):
        raise UsageError(
            f"'{run_dir.name}' classifies whole pictures; no bundle can be made of it.", code="wrong-run"
        )
    return recipe


def trained_segmenter(run_dir: Path, recipe: SegmenterRecipe) -> nn.Module:
    """Return the run's best segmenter. Raises: UsageError, where it has not finished an epoch."""
    return _with_weights(LightUNet(recipe.encoder), run_dir / recipe.name)


def trained_members(run_dir: Path, recipe: ClassifierRecipe) -> dict[str, nn.Module]:
    """Return the run's best classifiers by name. Raises: UsageError, where one has not finished an epoch."""
    return {
        str(member): _with_weights(LeukocyteClassifier(member, recipe.dropout), run_dir / str(member))
        for member in recipe.members
    }


def _with_weights(network: nn.Module, folder: Path) -> nn.Module:
    file = folder / BEST_FILE
    if not file.exists():
        raise UsageError(f"The run has no trained '{folder.name}' yet.", code="no-run")
    network.load_state_dict(load_file(file))
    return network.eval()


def fit_temperature(logits: Sequence[NDArray[np.float32]], allowed: NDArray[np.bool_]) -> float:
    """Return the temperature under which the members' mean probability of what is allowed is likeliest.

    `logits` float32 (N, L) by member; `allowed` bool (N, L). Source: Guo et al. 2017, arXiv 1706.04599.
    """
    return min(TEMPERATURES, key=lambda temperature: _surprise(logits, allowed, temperature))


def _surprise(logits: Sequence[NDArray[np.float32]], allowed: NDArray[np.bool_], temperature: float) -> float:
    mean: Probabilities = np.mean([_softmax(part / np.float32(temperature)) for part in logits], axis=0)
    return float(-np.log(np.maximum((mean * allowed).sum(axis=1), 1e-7)).mean())


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = grown / grown.sum(axis=1, keepdims=True)
    return shares


def write_bundle(runs: Runs, target: Path, called: BundleName, temperature: float) -> BundleManifest:
    """Return the manifest of the bundle that is now in `target`; it has no figures yet.

    Raises: UsageError, where a run is unfinished or of the other kind; DeploymentError, where an exported
    file does not give what its network gives.
    """
    segmenter_recipe, classifier_recipe = recipe_of(runs.segmenter), recipe_of(runs.classifier)
    if not isinstance(segmenter_recipe, SegmenterRecipe) or not isinstance(
        classifier_recipe, ClassifierRecipe
    ):
        raise UsageError("A bundle needs a segmenter's run and a classifier's run.", code="wrong-run")
    target.mkdir(parents=True, exist_ok=True)
    segmenter_shape = ExportShape(segmenter_recipe.input.side_px, STRIDE_PX)
    segmenter = trained_segmenter(runs.segmenter, segmenter_recipe)
    export_onnx(segmenter, segmenter_shape, 1.0, target / SEGMENTER_FILE)
    members: list[MemberEntry] = []
    for name, network in trained_members(runs.classifier, classifier_recipe).items():
        file = f"classifier_{name.removeprefix('efficientnet-').replace('-', '')}.onnx"
        export_onnx(network, ExportShape(classifier_recipe.input.side_px, None), temperature, target / file)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        members.append(MemberEntry(name, file, _sha256(target / file), parameters))
    manifest = BundleManifest(
        name=called.name,
        version=called.version,
        classes=tuple(str(leaf) for leaf in LEAVES),
        opset=OPSET,
        segmenter=SegmenterEntry(
            SEGMENTER_FILE, _sha256(target / SEGMENTER_FILE), STRIDE_PX, segmenter_recipe.input.mpp_um
        ),
        classifier=ClassifierEntry(
            classifier_recipe.input.side_px, classifier_recipe.input.mpp_um, tuple(members)
        ),
        data_sets=_data_sets(runs),
        recipes=tuple(RecipeEntry(r.name, r.digest) for r in (segmenter_recipe, classifier_recipe)),
        figures=(),
        trained_on=_trained_on(runs),
        software=tuple((name, package_version(name)) for name in _SOFTWARE),
    )
    write_manifest(target, manifest)
    return manifest


def write_manifest(target: Path, manifest: BundleManifest) -> None:
    """Write `manifest.json` into the bundle's folder."""
    (target / FILE_NAME).write_text(manifest.render(), encoding="utf-8")


def figures_of(scores: Sequence[tuple[str, str, float]]) -> tuple[Figure, ...]:
    """Return figures of (data set, measure, value), rounded to what is worth telling."""
    return tuple(Figure(data_set, measure, round(value, 4)) for data_set, measure, value in scores)


def _data_sets(runs: Runs) -> tuple[DataEntry, ...]:
    counts: dict[str, tuple[int, int]] = {}
    for run in (runs.segmenter, runs.classifier):
        noted = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
        for folder, images in noted.items():
            counts[str(folder)] = (int(images["train"]), int(images["val"]))
    return tuple(
        DataEntry(folder, source_of(folder).licence, train, val) for folder, (train, val) in counts.items()
    )


def _trained_on(runs: Runs) -> str:
    finished = max((run / RUN_FILE).stat().st_mtime for run in (runs.segmenter, runs.classifier))
    return date.fromtimestamp(finished).isoformat()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def member_logits(network: nn.Module, pixels: torch.Tensor, batch: int) -> NDArray[np.float32]:
    """Return float32 (N, L) of uint8 (N, H, W, 3) crops."""
    with torch.inference_mode():
        parts = [network(part).numpy() for part in torch.split(pixels, batch)]
    return np.asarray(np.concatenate(parts), np.float32)
