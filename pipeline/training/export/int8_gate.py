"""Makes a bundle's networks compute with bytes where that costs next to nothing, and notes what it costs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TypeAlias

import numpy as np

from pipeline.bundle.int8_figures import GateFigure, Int8Entry, Precision
from pipeline.bundle.manifest import (
    BundleManifest,
    MemberEntry,
    Profile,
    ProfileEntry,
    SegmenterMember,
)
from pipeline.model.domain import Rgb
from pipeline.model.errors import UsageError
from pipeline.runtime.bundle_loader import Bundle, load_bundle
from pipeline.runtime.concurrency.machine import ParallelismOverrides, available_cores, parallelism
from pipeline.runtime.engines.engine_port import Opener
from pipeline.runtime.engines.onnxruntime_engine import onnx_runtime
from pipeline.runtime.engines.openvino_engine import StreamCounts, openvino
from pipeline.runtime.graph_networks import GraphClassifier, GraphSegmenter
from pipeline.training.data.intervals import ALL_SETS
from pipeline.training.data.label_tables import LabelRow, Split, read_table
from pipeline.training.data.sources import source_of
from pipeline.training.data.training_samples import (
    CropSample,
    FieldSample,
    MapKind,
    crop_samples,
    field_samples,
)
from pipeline.training.evaluate.network_evaluation import classification_report, segmentation_report
from pipeline.training.export.bundle_export import write_manifest
from pipeline.training.export.static_quantisation import Calibration, quantise
from pipeline.training.fit.classifying import plain_crop
from pipeline.training.fit.segmenting import STORE_MPP_UM, at_scale
from pipeline.training.recipe.shippable import require_small

ALLOWED_LOSS = 0.005
"""of each figure, by the step from float to byte"""
CROPS_A_SET, TILES_A_SET = 24, 6
"""pictures of each set's train split that ranges are found on"""
_TILE_PX = 256
_BATCH = 16
_DIGITS = 5

Figures: TypeAlias = "dict[str, float]"
Heard: TypeAlias = "Callable[[str], None]"


@dataclass(frozen=True, slots=True)
class Pictures:
    """What ranges are found on, and what the gate measures on."""

    calibration_crops: tuple[CropSample, ...]
    calibration_fields: tuple[FieldSample, ...]
    val_crops: tuple[CropSample, ...]
    val_fields: tuple[FieldSample, ...]
    """with exact masks; fields are at the working scale"""


@dataclass(frozen=True, slots=True)
class _Trial:
    """One network on its way to int8: how it is measured, and on what its ranges are found."""

    member: MemberEntry
    measure: Callable[[MemberEntry, Precision], Figures]
    batches: Sequence[Rgb]


def quantise_bundle(folder: Path, pictures: Pictures, heard: Heard) -> BundleManifest:
    """Return the manifest, rewritten in `folder`, with an int8 file of each network that passes the gate.

    Figures of floats are by ONNX Runtime, those of bytes by OpenVINO, as they are run. Raises:
    DeploymentError, where the bundle is broken; UsageError, where there is nothing to measure on, or all
    files together would be too large to ship.
    """
    if not pictures.val_crops or not pictures.val_fields:
        raise UsageError("There is no val picture to measure on.", code="no_pictures")
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    entry = manifest.segmenter
    segmenters = tuple(
        replace(member, int8=_tried(folder, _segmenter_trial(bundle, member, pictures), heard))
        for member in entry.members
    )
    classifiers = tuple(
        replace(member, int8=_tried(folder, _classifier_trial(bundle, member, pictures), heard))
        for member in manifest.classifier.members
    )
    told = replace(
        manifest,
        segmenter=replace(entry, members=segmenters),
        classifier=replace(manifest.classifier, members=classifiers),
    )
    stored = {member.stored(precision).file for member in told.members for precision in Precision}
    require_small([folder / file for file in sorted(stored)])
    write_manifest(folder, told)
    return told


def passes(gate: Iterable[GateFigure]) -> bool:
    """Return whether no figure is lower by more than `ALLOWED_LOSS`."""
    return all(round(figure.fp32 - figure.int8, _DIGITS) <= ALLOWED_LOSS for figure in gate)


def _tried(folder: Path, trial: _Trial, heard: Heard) -> Int8Entry:
    """Return the first way of calibrating that passes; where none does, the last, without a file."""
    member = trial.member
    file = folder / f"{Path(member.file).stem}.int8.onnx"
    floats = trial.measure(member, Precision.FP32)
    for calibration in Calibration:
        quantise(folder / member.file, file, trial.batches, calibration)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        entry = Int8Entry(file.name, sha256, calibration, ())
        bytes_ = trial.measure(replace(member, int8=entry), Precision.INT8)
        gate = tuple(GateFigure(name, floats[name], bytes_[name]) for name in floats)
        passed = passes(gate)
        heard(_line(member, calibration, gate, "int8" if passed else "refused"))
        if passed:
            return replace(entry, gate=gate)
    file.unlink()
    heard(f"{member.name} stays {Precision.FP32}")
    return Int8Entry(None, None, calibration, gate)


def _line(member: MemberEntry, calibration: Calibration, gate: Iterable[GateFigure], end: str) -> str:
    figures = ", ".join(f"{one.measure} {one.fp32:.4f} → {one.int8:.4f}" for one in gate)
    return f"{member.name} ({calibration}): {figures}: {end}"


def _segmenter_trial(bundle: Bundle, member: SegmenterMember, pictures: Pictures) -> _Trial:
    def measure(asked: MemberEntry, precision: Precision) -> Figures:
        entry = bundle.manifest.segmenter
        # Told as the only one, it is opened and checked as any segmenter is.
        alone = replace(
            entry,
            members=(replace(member, int8=asked.int8),),
            profiles=(ProfileEntry(Profile.FAST, (member.name,)),),
        )
        told = replace(bundle, manifest=replace(bundle.manifest, segmenter=alone), precision=precision)
        with GraphSegmenter(told, _opener(precision)) as segmenter:
            report = segmentation_report(ALL_SETS, pictures.val_fields, segmenter)
        return _figures(cell_dice=report.cell_dice, nucleus_dice=report.nucleus_dice)

    side_px = -(-_TILE_PX // member.stride_px) * member.stride_px
    return _Trial(member, measure, [tile(one.pixels, side_px)[None] for one in pictures.calibration_fields])


def _classifier_trial(bundle: Bundle, member: MemberEntry, pictures: Pictures) -> _Trial:
    side_px = bundle.manifest.classifier.crop_px

    def measure(asked: MemberEntry, precision: Precision) -> Figures:
        alone = replace(bundle.manifest.classifier, members=(asked,))
        told = replace(bundle, manifest=replace(bundle.manifest, classifier=alone), precision=precision)
        with GraphClassifier(told, _opener(precision)) as classifier:
            parts = [classifier.classify(batch)[0] for batch in _batches(pictures.val_crops, side_px)]
        report = classification_report(ALL_SETS, member.name, pictures.val_crops, np.concatenate(parts))
        return _figures(group_macro_f1=report.group_macro_f1)

    return _Trial(member, measure, list(_batches(pictures.calibration_crops, side_px)))


def _opener(precision: Precision) -> Opener:
    wide = parallelism(available_cores(), ParallelismOverrides())
    if precision is Precision.INT8:
        return openvino(StreamCounts(wide.threads, wide.streams))
    return onnx_runtime(wide.threads)


def _figures(**measured: float | None) -> Figures:
    """Raises: UsageError, where one could not be measured: a gate without pictures lets everything pass."""
    found = {
        name: round(value, _DIGITS)
        for name, value in measured.items()
        if value is not None and isfinite(value)
    }
    if len(found) < len(measured):
        raise UsageError(f"There is no val picture to measure {', '.join(measured)} on.", code="no_pictures")
    return found


def _batches(crops: Sequence[CropSample], side_px: int) -> Iterator[Rgb]:
    for at in range(0, len(crops), _BATCH):
        yield np.stack([plain_crop(crop, side_px) for crop in crops[at : at + _BATCH]])


def tile(pixels: Rgb, side_px: int) -> Rgb:
    """Return uint8 (side, side, 3): the picture's middle, with white glass beyond its edge."""
    top, left = (max(0, (length - side_px) // 2) for length in pixels.shape[:2])
    part = pixels[top : top + side_px, left : left + side_px]
    below, right = (side_px - length for length in part.shape[:2])
    return np.pad(part, ((0, below), (0, right), (0, 0)), constant_values=255)


def read_pictures(manifest: BundleManifest, data_root: Path, limit: int | None) -> Pictures:
    """Return pictures of the data sets that the bundle names; of val all, or `limit` a set.

    Raises: UsageError, where a data set is missing.
    """
    tables = [read_table(data_root, source_of(entry.folder)) for entry in manifest.data_sets]
    train = [[row for row in table if row.split is Split.TRAIN] for table in tables]
    val = [[row for row in table if row.split is Split.VAL] for table in tables]
    if limit is not None:
        val = [_spread(rows, limit) for rows in val]
    crop_px, crop_mpp_um = manifest.classifier.crop_px, manifest.classifier.crop_mpp_um
    working_mpp_um = manifest.segmenter.working_mpp_um
    masked = [row for rows in val for row in rows if row.mask is not None]
    return Pictures(
        tuple(crop_samples(_several(train, CROPS_A_SET), crop_px, crop_mpp_um)),
        tuple(_fields(_several(train, TILES_A_SET), working_mpp_um)),
        tuple(crop_samples([row for rows in val for row in rows], crop_px, crop_mpp_um)),
        tuple(one for one in _fields(masked, working_mpp_um) if one.kind is MapKind.EXACT),
    )


def _fields(rows: Iterable[LabelRow], mpp_um: float) -> Iterator[FieldSample]:
    return (at_scale(sample, mpp_um) for sample in field_samples(rows, STORE_MPP_UM))


def _several(sets: Iterable[Sequence[LabelRow]], count: int) -> list[LabelRow]:
    return [row for rows in sets for row in _spread(rows, count)]


def _spread(rows: Sequence[LabelRow], count: int) -> list[LabelRow]:
    """Return at most `count` rows, as far apart as can be: tables are sorted by class."""
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [rows[int(index)] for index in chosen]
