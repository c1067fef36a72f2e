"""analyse_slide: the only composition of the stages. One scan in, one analysis out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.count.conclusion import conclude
from pipeline.count.ensemble import call_cell
from pipeline.detect.instances import SlideFrame
from pipeline.detect.outlines import Draughtsman, outline_frame
from pipeline.detect.platelets import apart_from, violet_bodies
from pipeline.detect.search import Search
from pipeline.detect.stitch import reading_order
from pipeline.measure.illumination import light_of, lit
from pipeline.measure.quality import darkest_thumbnail_of, quality_of, tissue_mask
from pipeline.measure.red_cells import free_red_cells_px0, per_mm2
from pipeline.measure.scale import scale_of
from pipeline.model.domain import (
    CallStatus,
    Cell,
    CellCall,
    CellInstance,
    Rgb,
    Scale,
    SlideAnalysis,
)
from pipeline.model.execution import Execution
from pipeline.model.geometry import Mpp, Rect, Size, WorkingFrame
from pipeline.model.ports import Classifier, Segmenter, SlideReader, Stage
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import CellClass, group_of
from pipeline.sampling.crops import read_crop, resized
from pipeline.sampling.strips import StripReader

T = TypeVar("T")

SAMPLE_PX0 = 2048
"""Side of the full-resolution sample on which scale, focus and stain are measured."""

WINDOWS = 7
WINDOW_PX0 = 1024
"""Windows in which a monolayer is looked for, and their side."""

RULER_UM_PER_PX = 0.4
"""Coarser windows are enlarged to this before red cells are measured on them."""


@dataclass(frozen=True, slots=True)
class Models:
    """The networks of one bundle, open."""

    segmenter: Segmenter
    classifier: Classifier


def analyse_slide(
    reader: SlideReader, models: Models, spec: PipelineSpec, execution: Execution
) -> SlideAnalysis:
    """Return the analysis of one open scan.

    Raises: InputError, where the scan is damaged where it is read; what the models raise.
    """
    observer = execution.observer
    with observer.stage(Stage.THUMBNAIL):
        strips = StripReader(reader, execution.crew)
        tissue = tissue_mask(darkest_thumbnail_of(strips))
        sample = _sample(strips, tissue)
        segmenter = lit(models.segmenter, light_of(sample))
    with observer.stage(Stage.SCALE):
        scale = scale_of(reader.meta.mpp, sample, segmenter, spec, execution.crew)
        frame = _frame(reader, scale, spec)
    quality_measured = execution.crew.begin(
        lambda: quality_of(tissue, sample, frame.working, _monolayer(reader, tissue, scale.mpp))
    )
    found = Search(reader, segmenter, frame, spec, execution).found(tissue)
    with observer.stage(Stage.OUTLINE):
        finer = outline_frame(frame, spec)
        draughtsman = Draughtsman(reader, segmenter, finer, spec, execution)
        instances = tuple(sorted(draughtsman.redrawn(found.cells), key=reading_order))
    with observer.stage(Stage.CLASSIFY):
        called = _Calling(reader, models.classifier, scale, spec, execution)
        cells = _with_second_look(called.cells(instances), called, sample, frame)
    with observer.stage(Stage.CONCLUDE):
        quality = quality_measured()
        conclusion = conclude(cells, quality, scale.source, spec)
    return SlideAnalysis(
        meta=reader.meta,
        scale=scale,
        frame=frame.working,
        quality=quality,
        tiles=found.tiles,
        cells=cells,
        differential=conclusion.differential,
        status=conclusion.status,
        reasons=conclusion.reasons,
        flags=conclusion.flags,
    )


def _frame(reader: SlideReader, scale: Scale, spec: PipelineSpec) -> SlideFrame:
    size_px0 = reader.meta.size_px0
    return SlideFrame(size_px0, scale.mpp, WorkingFrame.for_scan(size_px0, scale.mpp, spec.working_mpp_um))


def _sample(reader: SlideReader, tissue: NDArray[np.bool_]) -> Rgb:
    """Return level-0 pixels around the middle of the tissue, at most `SAMPLE_PX0` on a side."""
    rows, columns = np.nonzero(tissue)
    row, column = (np.median(rows), np.median(columns)) if rows.size else np.divide(tissue.shape, 2)
    return reader.read(0, _window(reader, tissue, (float(row), float(column)), SAMPLE_PX0))


def _monolayer(reader: SlideReader, tissue: NDArray[np.bool_], mpp: Mpp) -> float:
    """Return the free red cells per mm² of the best of a few windows spread over the tissue.

    A smear is thick at one end and feathers out at the other: some part of it is a monolayer, or it has none.
    """
    places = np.argwhere(tissue)
    chosen = places[np.linspace(0, len(places) - 1, WINDOWS).round().astype(int)] if len(places) else []
    enlarged = max(1.0, mpp.um_per_px0 / RULER_UM_PER_PX)
    side_px0 = int(WINDOW_PX0 / enlarged)
    windows = {_window(reader, tissue, (float(row), float(column)), side_px0) for row, column in chosen}
    return max((_density(reader.read(0, window), mpp, enlarged) for window in windows), default=0.0)


def _density(pixels: Rgb, mpp: Mpp, enlarged: float) -> float:
    """Return the free red cells per mm², measured on the picture enlarged: outlines need some pixels."""
    size = Size(round(pixels.shape[1] * enlarged), round(pixels.shape[0] * enlarged))
    diameters = free_red_cells_px0(resized(pixels, size))
    return per_mm2(diameters, size, Mpp(mpp.um_per_px0 / enlarged))


def _window(
    reader: SlideReader, tissue: NDArray[np.bool_], place: tuple[float, float], side_px0: int
) -> Rect:
    """Return the level-0 rectangle around a (row, column) of the thumbnail, moved to lie within the scan."""
    size = reader.meta.size_px0
    width, height = min(size.width, side_px0), min(size.height, side_px0)
    x = round((place[1] + 0.5) / tissue.shape[1] * size.width - width / 2)
    y = round((place[0] + 0.5) / tissue.shape[0] * size.height - height / 2)
    return Rect(min(max(0, x), size.width - width), min(max(0, y), size.height - height), width, height)


@dataclass(frozen=True, slots=True)
class _Calling:
    """What naming cells needs."""

    reader: SlideReader
    classifier: Classifier
    scale: Scale
    spec: PipelineSpec
    execution: Execution

    def cells(self, instances: Sequence[CellInstance]) -> tuple[Cell, ...]:
        """Return the instances with their calls, in their order."""
        return tuple(Cell(i, c) for i, c in zip(instances, self._calls(instances), strict=True))

    def _calls(self, instances: Sequence[CellInstance]) -> Iterator[CellCall]:
        size_px, mpp_um = self.classifier.crop_px, self.classifier.crop_mpp_um

        def crop_of(instance: CellInstance) -> Rgb:
            return read_crop(self.reader, _centre_px0(instance.bbox_px0), self.scale.mpp, size_px, mpp_um)

        crew = self.execution.crew
        batches = _chunks(crew.map(crop_of, instances), self.execution.crop_batch)
        nuclei_um2 = (instance.nucleus_area_um2 for instance in instances)
        for members in crew.map(lambda batch: self.classifier.classify(np.stack(batch)), batches):
            for said in np.swapaxes(members, 0, 1):
                yield call_cell(said, next(nuclei_um2), self.spec)


def _with_second_look(
    cells: tuple[Cell, ...], called: _Calling, sample: Rgb, frame: SlideFrame
) -> tuple[Cell, ...]:
    """Return the cells, with what a second look finds in a field or crop that shows none, in reading order.

    Only a scan that the sample shows whole is looked at: on a slide, platelets are not what is counted. What
    the ensemble takes neither for a platelet nor for a cell stays what the segmenter said: background.
    """
    size_px0 = frame.size_px0
    whole = (sample.shape[1], sample.shape[0]) == (size_px0.width, size_px0.height)
    if not whole or any(_may_be_leukocyte(cell) for cell in cells):
        return cells
    bodies = apart_from(violet_bodies(sample, frame), [cell.instance for cell in cells])
    seen = (_not_nucleated(cell) for cell in called.cells(bodies) if _is_body(cell, frame, called.spec))
    return tuple(sorted((*cells, *seen), key=lambda cell: reading_order(cell.instance)))


def _is_body(cell: Cell, frame: SlideFrame, spec: PipelineSpec) -> bool:
    """Return whether the second look keeps it: a platelet, or a cell that is all nucleus (a pyknotic
    erythroblast's: the segmenter has seen few) and large enough for one."""
    if _is_platelet(cell):
        return True
    large = frame.mpp.to_um2(cell.instance.area_px0) >= spec.min_cell_um2
    return large and cell.call.status is not CallStatus.ARTEFACT


def _not_nucleated(cell: Cell) -> Cell:
    """Return the body; an unsure platelet as an artefact: without a nucleus it is no leukocyte in doubt."""
    if cell.call.status is CallStatus.ACCEPTED or not _is_platelet(cell):
        return cell
    return replace(cell, call=replace(cell.call, status=CallStatus.ARTEFACT))


def _may_be_leukocyte(cell: Cell) -> bool:
    return cell.call.status is not CallStatus.ARTEFACT and not _is_platelet(cell)


def _is_platelet(cell: Cell) -> bool:
    return group_of(cell.call.cell_class) is CellClass.PLATELET


def _centre_px0(bbox_px0: Rect) -> tuple[float, float]:
    return bbox_px0.x + bbox_px0.width / 2, bbox_px0.y + bbox_px0.height / 2


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
