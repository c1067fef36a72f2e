"""analyse_slide: the only composition of the stages. One scan in, one analysis out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.conclusion import conclude
from pipeline.domain import (
    Cell,
    CellCall,
    CellInstance,
    Rgb,
    Scale,
    SlideAnalysis,
    Tile,
    TileCounts,
    TileSpec,
)
from pipeline.ensemble import call_cell
from pipeline.geometry import Rect, WorkingFrame
from pipeline.instances import SlideFrame, find_instances
from pipeline.ports import Classifier, Observer, Prefetch, Segmenter, SlideReader, Stage
from pipeline.preprocess import read_crop, read_tile
from pipeline.quality import quality_of, thumbnail_of, tiles_with_tissue, tissue_mask
from pipeline.scale import scale_of
from pipeline.spec import PipelineSpec
from pipeline.stitch import Sighting, depth_px0, stitched
from pipeline.tiling import tile_grid

T = TypeVar("T")

SAMPLE_PX0 = 2048
"""Side of the full-resolution sample on which scale, focus and stain are measured."""


@dataclass(frozen=True, slots=True)
class Models:
    """The networks of one bundle, open."""

    segmenter: Segmenter
    classifier: Classifier


@dataclass(frozen=True, slots=True)
class Execution:
    """How an analysis is run; nothing here changes its result."""

    observer: Observer
    prefetch: Prefetch
    tile_batch: int = 2
    crop_batch: int = 32


def analyse_slide(
    reader: SlideReader, models: Models, spec: PipelineSpec, execution: Execution
) -> SlideAnalysis:
    """Return the analysis of one open scan.

    Raises: InputError, where the scan is damaged where it is read; what the models raise.
    """
    observer = execution.observer
    with observer.stage(Stage.THUMBNAIL):
        thumbnail = thumbnail_of(reader)
        tissue = tissue_mask(thumbnail)
        sample = _sample(reader, tissue)
        quality = quality_of(thumbnail, sample)
    with observer.stage(Stage.SCALE):
        scale = scale_of(reader.meta.mpp, sample, models.segmenter, spec)
    frame = _frame(reader, scale, spec)
    with observer.stage(Stage.TILES):
        tiles, counts = _planned(frame, tissue, models.segmenter, spec)
        sightings = tuple(_sightings(_Search(reader, models.segmenter, frame, spec, execution), tiles))
    with observer.stage(Stage.STITCH):
        instances = stitched(sightings)
    with observer.stage(Stage.CLASSIFY):
        calls = tuple(_calls(reader, models.classifier, scale, instances, spec, execution))
    with observer.stage(Stage.CONCLUDE):
        cells = tuple(Cell(i, c) for i, c in zip(instances, calls, strict=True))
        conclusion = conclude(cells, quality, scale.source, spec)
    return SlideAnalysis(
        meta=reader.meta,
        scale=scale,
        frame=frame.working,
        quality=quality,
        tiles=counts,
        cells=cells,
        differential=conclusion.differential,
        status=conclusion.status,
        reasons=conclusion.reasons,
        flags=conclusion.flags,
    )


@dataclass(frozen=True, slots=True)
class _Search:
    """What finding cells needs."""

    reader: SlideReader
    segmenter: Segmenter
    frame: SlideFrame
    spec: PipelineSpec
    execution: Execution


def _frame(reader: SlideReader, scale: Scale, spec: PipelineSpec) -> SlideFrame:
    size_px0 = reader.meta.size_px0
    return SlideFrame(size_px0, scale.mpp, WorkingFrame.for_scan(size_px0, scale.mpp, spec.working_mpp_um))


def _sample(reader: SlideReader, tissue: NDArray[np.bool_]) -> Rgb:
    """Return level-0 pixels around the middle of the tissue, at most `SAMPLE_PX0` on a side."""
    size = reader.meta.size_px0
    rows, columns = np.nonzero(tissue)
    middle_y = float(np.median(rows) / tissue.shape[0]) if rows.size else 0.5
    middle_x = float(np.median(columns) / tissue.shape[1]) if rows.size else 0.5
    width, height = min(size.width, SAMPLE_PX0), min(size.height, SAMPLE_PX0)
    x = min(max(0, round(middle_x * size.width - width / 2)), size.width - width)
    y = min(max(0, round(middle_y * size.height - height / 2)), size.height - height)
    return reader.read(0, Rect(x, y, width, height))


def _planned(
    frame: SlideFrame, tissue: NDArray[np.bool_], segmenter: Segmenter, spec: PipelineSpec
) -> tuple[tuple[TileSpec, ...], TileCounts]:
    grid = tile_grid(frame.working.size_px, spec.tile_core_px, spec.halo_px, segmenter.stride_px)
    tiles = tiles_with_tissue(grid, tissue, frame.working)
    return tiles, TileCounts(planned=len(grid), empty=len(grid) - len(tiles), analysed=len(tiles))


def _sightings(search: _Search, tiles: Sequence[TileSpec]) -> Iterator[Sighting]:
    execution, frame = search.execution, search.frame
    done, found = 0, 0
    execution.observer.advanced(0, len(tiles), 0)
    read = execution.prefetch(read_tile(search.reader, frame.working, tile) for tile in tiles)
    for batch in _batches(read, execution.tile_batch):
        probabilities = search.segmenter.segment(np.stack([tile.pixels for tile in batch]))
        for tile, maps in zip(batch, probabilities, strict=True):
            core_px0 = frame.working.rect_to_px0(tile.spec.core_px)
            for instance in find_instances(maps, tile.spec, frame, search.spec):
                found += 1
                yield Sighting(instance, depth_px0(instance, core_px0))
        done += len(batch)
        execution.observer.advanced(done, len(tiles), found)
    if done != len(tiles):
        raise AssertionError(f"{len(tiles)} tiles planned, {done} analysed")


def _batches(tiles: Iterable[Tile], size: int) -> Iterator[list[Tile]]:
    """Yield runs of up to `size` tiles of one shape; edge tiles are smaller."""
    batch: list[Tile] = []
    for tile in tiles:
        if batch and (len(batch) == size or tile.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch = []
        batch.append(tile)
    if batch:
        yield batch


def _calls(
    reader: SlideReader,
    classifier: Classifier,
    scale: Scale,
    instances: Sequence[CellInstance],
    spec: PipelineSpec,
    execution: Execution,
) -> Iterator[CellCall]:
    crops = execution.prefetch(
        read_crop(reader, _centre_px0(i.bbox_px0), scale.mpp, classifier.crop_px, classifier.crop_mpp_um)
        for i in instances
    )
    for batch in _chunks(crops, execution.crop_batch):
        members = classifier.classify(np.stack(batch))
        for position in range(len(batch)):
            yield call_cell(members[:, position], spec)


def _centre_px0(bbox_px0: Rect) -> tuple[float, float]:
    return bbox_px0.x + bbox_px0.width / 2, bbox_px0.y + bbox_px0.height / 2


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
