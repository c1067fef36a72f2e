"""Evaluates a bundle's networks on the val splits, set by set, through ONNX Runtime as in production."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.bundle.manifest import BundleManifest
from pipeline.model.domain import Probabilities
from pipeline.model.ports import Classifier, Segmenter
from pipeline.model.taxonomy import GROUPS, LEAVES, group_of
from pipeline.runtime.bundle_loader import load_bundle
from pipeline.runtime.concurrency.machine import available_cores
from pipeline.runtime.engines.onnxruntime_engine import onnx_runtime
from pipeline.runtime.graph_networks import GraphClassifier, GraphSegmenter
from pipeline.training.data.cell_metrics import Confusion, confusion
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
from pipeline.training.fit.classifying import plain_crop
from pipeline.training.fit.segmenting import STORE_MPP_UM, at_scale, padded, tissue_overlaps

_BATCH = 64
MEAN_MEMBER = "ensemble"
NOT_A_CELL = ("platelet", "artefact")


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """One member, or the mean of all, on one set's crops (val, nominal scale, labelled centre)."""

    data_set: str
    member: str
    n: int
    """labelled crops of cells, without artefacts and platelets"""
    group_accuracy: float | None
    """None where there is no such crop"""
    group_macro_f1: float | None
    leaf_accuracy: float | None
    """among crops whose label is a leaf; None where there is none"""
    leaf_macro_f1: float | None
    not_cells: int
    not_cells_accuracy: float | None
    """of platelets and artefacts; None where there is none"""
    group_confusion: Confusion


@dataclass(frozen=True, slots=True)
class SegmentationReport:
    """Mean overlaps on one set's val pictures at the nominal scale."""

    data_set: str
    n: int
    cell_dice: float
    cell_iou: float
    nucleus_dice: float | None
    """over the pictures whose mask shows a nucleus; None where there is none"""
    nucleus_iou: float | None


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What `evaluate_bundle` returns."""

    bundle_digest: str
    classification: tuple[ClassificationReport, ...]
    segmentation: tuple[SegmentationReport, ...]

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    def scores(self) -> list[tuple[str, str, float]]:
        """Return (data set, measure, value) for the manifest: members over all sets, the ensemble by set."""
        out: list[tuple[str, str, float | None]] = []
        for part in self.classification:
            if part.member != MEAN_MEMBER and part.data_set != ALL_SETS:
                continue
            prefix = "" if part.member == MEAN_MEMBER else part.member + "_"
            named = {
                "group_accuracy": part.group_accuracy,
                "group_macro_f1": part.group_macro_f1,
                "leaf_accuracy": part.leaf_accuracy,
                "not_cells_accuracy": part.not_cells_accuracy,
            }
            out += [(part.data_set, prefix + name, value) for name, value in named.items()]
        for field in self.segmentation:
            out += [
                (field.data_set, "cell_dice", field.cell_dice),
                (field.data_set, "cell_iou", field.cell_iou),
                (field.data_set, "nucleus_dice", field.nucleus_dice),
                (field.data_set, "nucleus_iou", field.nucleus_iou),
            ]
        return [(data_set, measure, value) for data_set, measure, value in out if value is not None]


def evaluate_bundle(bundle_dir: Path, data_root: Path) -> BundleReport:
    """Return the bundle's figures on the val split of every data set that its manifest names.

    Raises: UsageError, where a data set is missing; DeploymentError, where the manifest is broken.
    """
    bundle = load_bundle(bundle_dir)
    rows = [
        row
        for entry in bundle.manifest.data_sets
        for row in read_table(data_root, source_of(entry.folder))
        if row.split is Split.VAL
    ]
    opener = onnx_runtime(available_cores())
    with GraphSegmenter(bundle, opener) as segmenter, GraphClassifier(bundle, opener) as classifier:
        crops = tuple(crop_samples(rows, classifier.crop_px.width, classifier.crop_mpp_um))
        predictions = _predictions(bundle.manifest, classifier, crops) if crops else {}
        return BundleReport(
            bundle_digest=bundle.manifest.digest,
            classification=tuple(_classification(crops, predictions)),
            segmentation=tuple(_segmentation(segmenter, bundle.manifest.segmenter.working_mpp_um, rows)),
        )


def _predictions(
    manifest: BundleManifest, classifier: Classifier, crops: Sequence[CropSample]
) -> dict[str, Probabilities]:
    """Return float32 (N, leaves) by member, and their mean."""
    pixels = np.stack([plain_crop(sample, classifier.crop_px.width) for sample in crops])
    parts = [classifier.classify(pixels[at : at + _BATCH]) for at in range(0, len(pixels), _BATCH)]
    by_member = np.concatenate(parts, axis=1)
    names = [member.name for member in manifest.classifier.members]
    return {**dict(zip(names, by_member, strict=True)), MEAN_MEMBER: by_member.mean(axis=0)}


def _classification(
    crops: Sequence[CropSample], predictions: dict[str, Probabilities]
) -> Iterable[ClassificationReport]:
    folders = np.array([sample.folder for sample in crops])
    for data_set in (*dict.fromkeys(sample.folder for sample in crops), ALL_SETS):
        chosen = np.flatnonzero((folders == data_set) | (data_set == ALL_SETS))
        subset = [crops[int(index)] for index in chosen]
        for member, probabilities in predictions.items():
            yield classification_report(data_set, member, subset, probabilities[chosen])


def classification_report(
    data_set: str, member: str, crops: Sequence[CropSample], probabilities: Probabilities
) -> ClassificationReport:
    """Return the figures of float32 (N, leaves) on N crops. A group's probability is that of its leaves."""
    grouped = np.stack(
        [
            probabilities[:, [index for index, leaf in enumerate(LEAVES) if group_of(leaf) is group]].sum(
                axis=1
            )
            for group in GROUPS
        ],
        axis=1,
    )
    predicted = [str(GROUPS[index]) for index in grouped.argmax(axis=1)]
    leaves = [str(LEAVES[index]) for index in probabilities.argmax(axis=1)]
    truth = [str(group_of(sample.cell_class)) for sample in crops]
    cells = [index for index, name in enumerate(truth) if name not in NOT_A_CELL]
    others = [index for index, name in enumerate(truth) if name in NOT_A_CELL]
    fine = [index for index in cells if crops[index].cell_class in LEAVES]
    groups = confusion([truth[i] for i in cells], [predicted[i] for i in cells], [str(g) for g in GROUPS])
    leaf_table = confusion(
        [str(crops[i].cell_class) for i in fine], [leaves[i] for i in fine], [str(leaf) for leaf in LEAVES]
    )
    return ClassificationReport(
        data_set=data_set,
        member=member,
        n=len(cells),
        group_accuracy=groups.accuracy if cells else None,
        group_macro_f1=groups.macro_f1 if cells else None,
        leaf_accuracy=leaf_table.accuracy if fine else None,
        leaf_macro_f1=leaf_table.macro_f1 if fine else None,
        not_cells=len(others),
        not_cells_accuracy=sum(predicted[i] in NOT_A_CELL for i in others) / len(others) if others else None,
        group_confusion=groups,
    )


def _segmentation(
    segmenter: Segmenter, working_mpp_um: float, rows: Sequence[LabelRow]
) -> Iterable[SegmentationReport]:
    masked = [row for row in rows if row.mask is not None]
    by_set: dict[str, list[FieldSample]] = {}
    for sample in field_samples(masked, STORE_MPP_UM):
        if sample.kind is MapKind.EXACT:
            by_set.setdefault(sample.folder, []).append(at_scale(sample, working_mpp_um))
    for data_set, samples in by_set.items():
        yield segmentation_report(data_set, samples, segmenter)


def segmentation_report(
    data_set: str, samples: Sequence[FieldSample], segmenter: Segmenter
) -> SegmentationReport:
    """Return the means over samples at the working scale whose label maps are exact."""
    cells, nuclei = [], []
    for sample in samples:
        rgb, tissue = padded(sample.pixels, sample.tissue, segmenter.stride_px)
        agreement = tissue_overlaps(segmenter.segment(rgb[None])[0], tissue)
        cells.append(agreement.cell)
        if agreement.nucleus is not None:
            nuclei.append(agreement.nucleus)
    return SegmentationReport(
        data_set=data_set,
        n=len(samples),
        cell_dice=float(np.mean([overlap.dice for overlap in cells])),
        cell_iou=float(np.mean([overlap.iou for overlap in cells])),
        nucleus_dice=float(np.mean([overlap.dice for overlap in nuclei])) if nuclei else None,
        nucleus_iou=float(np.mean([overlap.iou for overlap in nuclei])) if nuclei else None,
    )
