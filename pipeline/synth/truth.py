"""The ground truth of a synthetic smear, and its sidecar document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast

import numpy as np

from pipeline.model.domain import Contour
from pipeline.model.errors import InputError
from pipeline.model.geometry import Mpp, Size
from pipeline.model.json_value import Json
from pipeline.model.taxonomy import CellClass

FORMAT = "leukoflow-truth"
VERSION = 1
_DECIMALS = 2
"""of coordinates in the document; `rounded` applies the same precision to the truth"""


@dataclass(frozen=True, slots=True, eq=False)
class TrueCell:
    """One drawn leukocyte; pixel (0, 0) spans 0 to 1, its centre is (½, ½)."""

    centre_px0: tuple[float, float]
    outline_px0: Contour
    nuclei_px0: tuple[Contour, ...]
    cell_class: CellClass
    touching: bool
    """whether it touches another leukocyte"""


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The content of a truth document."""

    size_px0: Size
    mpp: Mpp
    seed: int
    cells: tuple[TrueCell, ...]


def rounded(contour: Contour) -> Contour:
    """Return the contour at the precision of the document."""
    return np.round(contour.astype(np.float64), _DECIMALS).astype(np.float32)


def document_of(truth: Truth) -> str:
    """Return the truth as a JSON document, for `parse_truth`."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "size_px0": [truth.size_px0.width, truth.size_px0.height],
        "um_per_px0": truth.mpp.um_per_px0,
        "seed": truth.seed,
        "cells": [_cell_document(cell) for cell in truth.cells],
    }
    return json.dumps(document, separators=(",", ":")) + "\n"


def parse_truth(text: str) -> Truth:
    """Return the truth of a document.

    Raises: InputError, where it is not a truth document of this version.
    """
    try:
        document = cast("dict[str, Json]", json.loads(text))
        if (document["format"], document["version"]) != (FORMAT, VERSION):
            raise ValueError("another format or version")
        width, height = cast("list[int]", document["size_px0"])
        return Truth(
            size_px0=Size(width, height),
            mpp=Mpp(cast(float, document["um_per_px0"])),
            seed=cast(int, document["seed"]),
            cells=tuple(_cell(cell) for cell in cast("list[dict[str, Json]]", document["cells"])),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError("the truth document cannot be read", code="truth_unreadable") from error


def _cell_document(cell: TrueCell) -> dict[str, Json]:
    return {
        "class": cell.cell_class.value,
        "centre_px0": [round(value, _DECIMALS) for value in cell.centre_px0],
        "outline_px0": _points(cell.outline_px0),
        "nuclei_px0": [_points(contour) for contour in cell.nuclei_px0],
        "touching": cell.touching,
    }


def _points(contour: Contour) -> Json:
    return [[round(x, _DECIMALS), round(y, _DECIMALS)] for x, y in contour.tolist()]


def _cell(document: dict[str, Json]) -> TrueCell:
    x, y = cast("list[float]", document["centre_px0"])
    return TrueCell(
        centre_px0=(float(x), float(y)),
        outline_px0=_contour(document["outline_px0"]),
        nuclei_px0=tuple(_contour(points) for points in cast("list[Json]", document["nuclei_px0"])),
        cell_class=CellClass(cast(str, document["class"])),
        touching=bool(document["touching"]),
    )


def _contour(points: Json) -> Contour:
    contour = np.asarray(points, np.float32)
    if contour.ndim != 2 or contour.shape[1] != 2:
        raise ValueError("a contour is a list of points")
    return contour
