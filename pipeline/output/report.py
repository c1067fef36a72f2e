"""Converts results to JSON, for `analyse --json` and `results --format json`, and to GeoJSON for QuPath."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import TypeAlias

from pipeline.model.domain import (
    CallStatus,
    Cell,
    ClassCount,
    Contour,
    Differential,
    Provenance,
    Scale,
    ScaleSource,
    SlideResult,
)
from pipeline.model.geometry import Rect
from pipeline.model.json_value import Json
from pipeline.model.taxonomy import LOINC

JsonObject: TypeAlias = "dict[str, Json]"

PROBABILITY_DIGITS = 5


def slide_document(path: str, result: SlideResult) -> JsonObject:
    """Return the object that `analyse --json` prints for one scan; `path` as the user gave it."""
    analysis = result.analysis
    size = analysis.meta.size_px0
    return {
        "path": path,
        "status": analysis.status.value,
        "reasons": list(analysis.reasons),
        "size_px": [size.width, size.height],
        **scale_document(analysis.scale),
        "cells": [cell_document(cell) for cell in analysis.cells],
        "differential": differential_document(analysis.differential),
        "flags": [flag.value for flag in analysis.flags],
        "quality": {
            "tissue_fraction": round(analysis.quality.tissue_fraction, 5),
            "focus": round(analysis.quality.focus, 3),
            "stain_contrast": round(analysis.quality.stain_contrast, 4),
            "free_red_cells_per_mm2": round(analysis.quality.free_red_cells_per_mm2, 1),
        },
        "tiles": {
            "planned": analysis.tiles.planned,
            "empty": analysis.tiles.empty,
            "analysed": analysis.tiles.analysed,
        },
        "provenance": provenance_document(result.provenance),
    }


def scale_document(scale: Scale) -> JsonObject:
    """Return `mpp` as stated by the file, or null and the scale used instead."""
    stated = scale.source is ScaleSource.FILE
    um = round(scale.mpp.um_per_px0, 6)
    return {
        "mpp": um if stated else None,
        "mpp_assumed": None if stated else um,
        "scale_source": scale.source.value,
    }


def cell_document(cell: Cell) -> JsonObject:
    """Return one cell: coordinates in level-0 pixels, areas in µm²."""
    instance, call = cell.instance, cell.call
    return {
        "bbox_px0": _box(instance.bbox_px0),
        "centroid_px0": [round(v, 2) for v in instance.centroid_px0],
        "contour_px0": _points(instance.contour_px0),
        "nucleus_contours_px0": [_points(contour) for contour in instance.nucleus_contours_px0],
        "area_um2": round(instance.area_um2, 3),
        "nucleus_area_um2": round(instance.nucleus_area_um2, 3),
        "score": round(instance.score, PROBABILITY_DIGITS),
        "touches_edge": instance.touches_edge,
        "class": call.cell_class.value,
        "probability": round(call.probability, PROBABILITY_DIGITS),
        "probabilities": {leaf.value: round(p, PROBABILITY_DIGITS) for leaf, p in call.probabilities.items()},
        "disagreement": round(call.disagreement, PROBABILITY_DIGITS),
        "call": call.status.value,
    }


def differential_document(differential: Differential) -> JsonObject:
    """Return the differential; the line of a parent includes those of its children."""
    return {
        "n": differential.n_leukocytes,
        "n_found": differential.n_found,
        "n_unidentified": differential.n_unidentified,
        "n_artefacts": differential.n_artefacts,
        "denominators": {
            "leukocytes": differential.n_leukocytes,
            "per_100_leukocytes": "cells seen while 100 leukocytes were counted",
        },
        "classes": {line.cell_class.value: _line(line) for line in differential.classes},
    }


def _line(line: ClassCount) -> JsonObject:
    return {
        "count": line.count,
        "percent": None if line.percent is None else round(line.percent, 3),
        "ci95": None if line.ci95_percent is None else [round(v, 3) for v in line.ci95_percent],
        "denominator": line.denominator.value,
        "loinc": LOINC.get(line.cell_class),
    }


def provenance_document(provenance: Provenance) -> JsonObject:
    """Return the provenance of a result."""
    key = provenance.run_key
    return {
        "scan_digest": key.scan_digest,
        "bundle_digest": key.bundle_digest,
        "spec_digest": key.spec_digest,
        "bundle": provenance.bundle_name,
        "engine": provenance.engine,
        "software_version": provenance.software_version,
        "timings_s": {stage: round(seconds, 4) for stage, seconds in provenance.timings_s},
    }


def geojson_gz(cells: Iterable[Cell]) -> bytes:
    """Return gzipped GeoJSON for QuPath: one detection per cell, in level-0 pixels."""
    document = {"type": "FeatureCollection", "features": [_feature(cell) for cell in cells]}
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)


def _feature(cell: Cell) -> JsonObject:
    call = cell.call
    name = call.cell_class.value if call.status is CallStatus.ACCEPTED else call.status.value
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [_ring(cell.instance.contour_px0)]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": name},
            "measurements": {
                "probability": round(call.probability, PROBABILITY_DIGITS),
                "disagreement": round(call.disagreement, PROBABILITY_DIGITS),
                "area_um2": round(cell.instance.area_um2, 3),
                "nucleus_area_um2": round(cell.instance.nucleus_area_um2, 3),
            },
        },
    }


def _box(rect: Rect) -> list[Json]:
    return [rect.x, rect.y, rect.width, rect.height]


def _points(contour: Contour) -> list[Json]:
    return [[round(float(x), 2), round(float(y), 2)] for x, y in contour]


def _ring(contour: Contour) -> list[Json]:
    points = _points(contour)
    return [*points, points[0]]
