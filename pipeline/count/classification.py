"""Classifies crops of the detected cells with the ensemble, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from pipeline.count.ensemble import call_cell
from pipeline.model.domain import Cell, CellCall, CellInstance, Rgb, Scale
from pipeline.model.execution import Execution
from pipeline.model.geometry import Rect
from pipeline.model.ports import Classifier, SlideReader
from pipeline.model.spec import PipelineSpec
from pipeline.sampling.crops import read_crop

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CellClassification:
    """Classifies the cells of one scan."""

    reader: SlideReader
    classifier: Classifier
    scale: Scale
    spec: PipelineSpec
    execution: Execution

    def cells(self, instances: Sequence[CellInstance]) -> tuple[Cell, ...]:
        """Return the instances with their classification, in order."""
        return tuple(Cell(i, c) for i, c in zip(instances, self._calls(instances), strict=True))

    def _calls(self, instances: Sequence[CellInstance]) -> Iterator[CellCall]:
        size_px, mpp_um = self.classifier.crop_px, self.classifier.crop_mpp_um

        def crop_of(instance: CellInstance) -> Rgb:
            return read_crop(self.reader, _centre_px0(instance.bbox_px0), self.scale.mpp, size_px, mpp_um)

        pool = self.execution.pool
        batches = _chunks(pool.map(crop_of, instances), self.execution.crop_batch)
        nuclei_um2 = (instance.nucleus_area_um2 for instance in instances)
        for members in pool.map(lambda batch: self.classifier.classify(np.stack(batch)), batches):
            for probabilities in np.swapaxes(members, 0, 1):
                yield call_cell(probabilities, next(nuclei_um2), self.spec)


def _centre_px0(bbox_px0: Rect) -> tuple[float, float]:
    return bbox_px0.x + bbox_px0.width / 2, bbox_px0.y + bbox_px0.height / 2


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
