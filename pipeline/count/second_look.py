"""Looks for platelets, and cells without visible cytoplasm, in pictures without leukocytes."""

from __future__ import annotations

from dataclasses import replace

from pipeline.count.classification import CellClassification
from pipeline.detect.instances import SlideFrame
from pipeline.detect.platelets import apart_from, violet_bodies
from pipeline.detect.stitch import reading_order
from pipeline.model.domain import CallStatus, Cell, Rgb
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import CellClass, group_of


def with_second_look(
    cells: tuple[Cell, ...], classification: CellClassification, sample: Rgb, frame: SlideFrame
) -> tuple[Cell, ...]:
    """Return the cells in reading order, with those of a second look if the picture has no leukocyte.

    Only fields and crops, which the sample covers completely, are searched; on slides platelets are not
    counted. Bodies that the ensemble considers neither platelets nor cells remain background.
    """
    size_px0 = frame.size_px0
    whole = (sample.shape[1], sample.shape[0]) == (size_px0.width, size_px0.height)
    if not whole or any(_may_be_leukocyte(cell) for cell in cells):
        return cells
    bodies = apart_from(violet_bodies(sample, frame), [cell.instance for cell in cells])
    seen = (
        _not_nucleated(cell)
        for cell in classification.cells(bodies)
        if _is_body(cell, frame, classification.spec)
    )
    return tuple(sorted((*cells, *seen), key=lambda cell: reading_order(cell.instance)))


def _is_body(cell: Cell, frame: SlideFrame, spec: PipelineSpec) -> bool:
    """Return whether the body is kept: a platelet, or a cell of sufficient size without visible cytoplasm,
    such as a pyknotic erythroblast."""
    if _is_platelet(cell):
        return True
    large = frame.mpp.to_um2(cell.instance.area_px0) >= spec.min_cell_um2
    return large and cell.call.status is not CallStatus.ARTEFACT


def _not_nucleated(cell: Cell) -> Cell:
    """Return the body, an uncertain platelet as an artefact: without a nucleus it cannot be a leukocyte."""
    if cell.call.status is CallStatus.ACCEPTED or not _is_platelet(cell):
        return cell
    return replace(cell, call=replace(cell.call, status=CallStatus.ARTEFACT))


def _may_be_leukocyte(cell: Cell) -> bool:
    return cell.call.status is not CallStatus.ARTEFACT and not _is_platelet(cell)


def _is_platelet(cell: Cell) -> bool:
    return group_of(cell.call.cell_class) is CellClass.PLATELET
