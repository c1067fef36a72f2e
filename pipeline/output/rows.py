"""A result as rows of plain values, for data frames and tables: `pandas.DataFrame(rows)`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.model.domain import Cell, Differential
from pipeline.model.taxonomy import LOINC


@dataclass(frozen=True, slots=True)
class DifferentialRow:
    """One class of a differential."""

    cell_class: str
    count: int
    percent: float | None
    """of `denominator`; None where there is nothing to divide by"""
    ci95_low_percent: float | None
    ci95_high_percent: float | None
    denominator: str
    loinc: str | None


@dataclass(frozen=True, slots=True)
class CellRow:
    """One found cell, in level-0 pixels (`_px0`) and µm²."""

    cell_class: str
    call: str
    """`accepted`, `unidentified` or `artefact`"""
    probability: float
    """of `cell_class`, 0 to 1"""
    disagreement: float
    """of the classifiers, 0 to 1"""
    x_px0: float
    """of the centroid"""
    y_px0: float
    left_px0: int
    """of the bounding box"""
    top_px0: int
    width_px0: int
    height_px0: int
    area_um2: float
    nucleus_area_um2: float
    touches_edge: bool


def differential_rows(differential: Differential) -> tuple[DifferentialRow, ...]:
    """Return a row a class, in the order of the differential; a parent's row includes those of its leaves."""
    return tuple(
        DifferentialRow(
            cell_class=line.cell_class.value,
            count=line.count,
            percent=line.percent,
            ci95_low_percent=None if line.ci95_percent is None else line.ci95_percent[0],
            ci95_high_percent=None if line.ci95_percent is None else line.ci95_percent[1],
            denominator=line.denominator.value,
            loinc=LOINC.get(line.cell_class),
        )
        for line in differential.classes
    )


def cell_rows(cells: Iterable[Cell]) -> tuple[CellRow, ...]:
    """Return a row a cell, in their order."""
    return tuple(_cell_row(cell) for cell in cells)


def _cell_row(cell: Cell) -> CellRow:
    instance, call = cell.instance, cell.call
    x_px0, y_px0 = instance.centroid_px0
    box_px0 = instance.bbox_px0
    return CellRow(
        cell_class=call.cell_class.value,
        call=call.status.value,
        probability=call.probability,
        disagreement=call.disagreement,
        x_px0=x_px0,
        y_px0=y_px0,
        left_px0=box_px0.x,
        top_px0=box_px0.y,
        width_px0=box_px0.width,
        height_px0=box_px0.height,
        area_um2=instance.area_um2,
        nucleus_area_um2=instance.nucleus_area_um2,
        touches_edge=instance.touches_edge,
    )
