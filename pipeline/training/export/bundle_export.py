"""Writes a bundle: the best weights of several runs as ONNX files, and the manifest that tells about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import version as package_version
from pathlib import Path

from torch import nn

from pipeline.bundle.manifest import (
    FILE_NAME,
    BundleManifest,
    ClassifierEntry,
    DataEntry,
    Figure,
    MemberEntry,
    Profile,
    ProfileEntry,
    RecipeEntry,
    SegmenterEntry,
    SegmenterMember,
)
from pipeline.model.errors import UsageError
from pipeline.model.taxonomy import LEAVES
from pipeline.networks.cenet import CENet, fit_float16
from pipeline.training.data.sources import source_of
from pipeline.training.export.onnx_export import OPSET, VIEWS, ExportForm, ExportShape, export_onnx
from pipeline.training.export.weight_storage import Storage
from pipeline.training.fit.run_folder import RUN_FILE, recipe_of, trained_members, trained_segmenter
from pipeline.training.fit.training_loop import weights_digest
from pipeline.training.recipe.architectures import LightUNetPlan
from pipeline.training.recipe.recipes import (
    CellRecipe,
    ClassifierRecipe,
    SegmenterRecipe,
)
from pipeline.training.recipe.shippable import (
    CLASSIFIER_PARAMETERS,
    FAST_SEGMENTER_PARAMETERS,
    require_light,
    require_shippable,
    require_small,
)

_SOFTWARE = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "opencv-python-headless")


@dataclass(frozen=True, slots=True)
class BundleName:
    """What a bundle is called; its folder is `<name>-<version>`."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How the files of a bundle are made."""

    views: int = 1
    """of a crop whose class probabilities each classifier's graph averages: 1, 2 or 4"""
    storage: Storage = Storage.FLOAT16
    """of all networks' weights"""


SHIPPED_OPTIONS = ExportOptions()


@dataclass(frozen=True, slots=True)
class Runs:
    """The finished runs that a bundle is made of."""

    segmenters: tuple[Path, ...]
    classifier: Path

    @property
    def all(self) -> tuple[Path, ...]:
        return (*self.segmenters, self.classifier)


def write_bundle(
    runs: Runs, target: Path, called: BundleName, temperature: float, making: ExportOptions = SHIPPED_OPTIONS
) -> BundleManifest:
    """Return the manifest of the bundle that is now in `target`, as yet without figures and thresholds.

    Raises: UsageError, where a run is unfinished or of the other kind, learned from what may not be shipped,
    or is too large; DeploymentError, where an exported file does not give what its network gives.
    """
    if making.views not in VIEWS:
        raise UsageError(f"Views are {', '.join(map(str, VIEWS))}, not {making.views}.", code="bad_views")
    finders = _segmenter_runs(runs)
    ensemble = recipe_of(runs.classifier)
    if not isinstance(ensemble, ClassifierRecipe):
        raise UsageError("A bundle needs segmenters' runs and a classifier's run.", code="wrong_run")
    recipes = (*(recipe for _, recipe in finders), ensemble)
    for recipe in recipes:
        require_shippable(recipe.name, recipe.sources)
    target.mkdir(parents=True, exist_ok=True)
    segmenter = _write_segmenters(finders, target, making)
    classifier = _write_classifiers(runs.classifier, ensemble, target, temperature, making)
    require_small([target / member.file for member in (*segmenter.members, *classifier.members)])
    manifest = BundleManifest(
        name=called.name,
        version=called.version,
        classes=tuple(str(leaf) for leaf in LEAVES),
        opset=OPSET,
        segmenter=segmenter,
        classifier=classifier,
        data_sets=_data_sets(runs),
        recipes=tuple(RecipeEntry(recipe.name, recipe.digest) for recipe in recipes),
        thresholds=None,
        figures=(),
        timings=(),
        trained_on=_trained_on(runs),
        software=tuple((name, package_version(name)) for name in _SOFTWARE),
    )
    write_manifest(target, manifest)
    return manifest


def _segmenter_runs(runs: Runs) -> list[tuple[Path, SegmenterRecipe]]:
    """Return the segmenters, the one of the profile `fast` last, as the profile `accurate` asks them."""
    found: list[tuple[Path, SegmenterRecipe]] = []
    for run in runs.segmenters:
        recipe = recipe_of(run)
        if not isinstance(recipe, SegmenterRecipe):
            raise UsageError("A bundle needs segmenters' runs and a classifier's run.", code="wrong_run")
        found.append((run, recipe))
    light = [recipe for _, recipe in found if isinstance(recipe.network, LightUNetPlan)]
    if len(light) != 1 or len({recipe.name for _, recipe in found}) < len(found):
        raise UsageError(
            "A bundle needs one run of a light U-Net, and each other segmenter once.", code="wrong_run"
        )
    if len({recipe.input.mpp_um for _, recipe in found}) > 1:
        raise UsageError("The segmenters were trained at different scales.", code="wrong_run")
    return sorted(found, key=lambda run: run[1] is light[0])


def _write_segmenters(
    found: Sequence[tuple[Path, SegmenterRecipe]], target: Path, making: ExportOptions
) -> SegmenterEntry:
    members: list[SegmenterMember] = []
    for run, recipe in found:
        network = trained_segmenter(run, recipe)
        entry = _entry(recipe.name, f"segmenter_{_plain(recipe.name)}.onnx", recipe, network)
        if isinstance(network, CENet):
            fit_float16(network)
        if isinstance(recipe.network, LightUNetPlan):
            require_light("segmenter of the profile 'fast'", [entry], FAST_SEGMENTER_PARAMETERS)
        shape = ExportShape(recipe.input.side_px, recipe.network.stride_px)
        export_onnx(
            network,
            shape,
            1.0,
            target / entry.file,
            ExportForm(making.storage),
        )
        members.append(SegmenterMember(**asdict(_signed(entry, target)), stride_px=recipe.network.stride_px))
    names = tuple(member.name for member in members)
    profiles = [ProfileEntry(Profile.FAST, names[-1:])]
    if len(names) > 1:
        profiles.append(ProfileEntry(Profile.ACCURATE, names))
    return SegmenterEntry(found[0][1].input.mpp_um, tuple(members), tuple(profiles))


def _write_classifiers(
    run: Path, recipe: ClassifierRecipe, target: Path, temperature: float, making: ExportOptions
) -> ClassifierEntry:
    networks = trained_members(run, recipe)
    members = [
        _entry(name, f"classifier_{_plain(name.removeprefix('efficientnet-'))}.onnx", recipe, network)
        for name, network in networks.items()
    ]
    require_light("classifiers", members, CLASSIFIER_PARAMETERS)
    form = ExportForm(making.storage, making.views)
    for member in members:
        shape = ExportShape(recipe.input.side_px, None)
        export_onnx(networks[member.name], shape, temperature, target / member.file, form)
    signed = tuple(_signed(member, target) for member in members)
    return ClassifierEntry(recipe.input.side_px, recipe.input.mpp_um, making.views, signed)


def _entry(name: str, file: str, recipe: CellRecipe, network: nn.Module) -> MemberEntry:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return MemberEntry(name, file, "", parameters, recipe.digest, weights_digest(network.state_dict()))


def _signed(entry: MemberEntry, target: Path) -> MemberEntry:
    """Return the entry with the digest of its file, which is written by now."""
    return replace(entry, sha256=hashlib.sha256((target / entry.file).read_bytes()).hexdigest())


def _plain(name: str) -> str:
    return name.replace("-", "")


def write_manifest(target: Path, manifest: BundleManifest) -> None:
    """Write `manifest.json` into the bundle's folder."""
    (target / FILE_NAME).write_text(manifest.render(), encoding="utf-8")


def figures_of(scores: Sequence[tuple[str, str, float]]) -> tuple[Figure, ...]:
    """Return figures of (data set, measure, value), rounded to what is worth telling."""
    return tuple(Figure(data_set, measure, round(value, 4)) for data_set, measure, value in scores)


def _data_sets(runs: Runs) -> tuple[DataEntry, ...]:
    """Of each data set the most images that a run of the bundle saw: another may have skipped some."""
    counts: dict[str, tuple[int, int]] = {}
    for run in runs.all:
        noted = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
        for folder, images in noted.items():
            train, val = counts.get(str(folder), (0, 0))
            counts[str(folder)] = (max(train, int(images["train"])), max(val, int(images["val"])))
    return tuple(
        DataEntry(folder, source_of(folder).licence, train, val) for folder, (train, val) in counts.items()
    )


def _trained_on(runs: Runs) -> str:
    finished = max((run / RUN_FILE).stat().st_mtime for run in runs.all)
    return date.fromtimestamp(finished).isoformat()
