"""One slide, the same weights, three ways: leukoflow, the plain loop over tiles in torch, MONAI's windows.

Everything but the networks is leukoflow's own in all three: what is compared is how they are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from pipeline.model.domain import Cell, Probabilities, Rgb, SlideAnalysis
from pipeline.model.execution import Execution
from pipeline.model.geometry import Size
from pipeline.model.spec import PipelineSpec
from pipeline.run import Models, analyse_slide
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.concurrency.ordered_threads import OrderedThreadPool
from pipeline.runtime.readers import open_slide
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from tests.bench.measure import ROUNDS, Measure
from tests.bench.networks import LEUKOCYTES, SIZE_PX0
from tests.bench.torch_twins import (
    Net,
    TorchClassifier,
    TorchSegmenter,
    torch_classifier,
    torch_segmenter,
)
from tests.support.serial_pool import SerialPool

CROWDED_PX0, CROWD = 2048, 40
WINDOW_PX = 1024
"""as wide as leukoflow's tiles with their halo"""
SAME_PLACE_UM = 2.0
OURS = "leukoflow"
MANY = 1_000_000
"""tiles: nobody else looks for candidates first"""


class MonaiSegmenter:
    """A `ports.Segmenter` that has MONAI slide its window over the whole picture, with its usual overlap."""

    def __init__(self, network: Net, stride_px: int) -> None:
        self._network = network
        self.stride_px = stride_px

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W)."""
        if max(batch.shape[1:3]) <= WINDOW_PX:  # it would be padded to a window, which nobody would do
            return TorchSegmenter(self._network, self.stride_px).segment(batch)
        picture = torch.from_numpy(batch).permute(0, 3, 1, 2).float()  # MONAI answers in its input's type
        with torch.inference_mode():
            answer = sliding_window_inference(picture, (WINDOW_PX, WINDOW_PX), 1, self._ask, overlap=0.25)
        assert isinstance(answer, Tensor)
        return np.asarray(answer.numpy(), np.float32)

    def _ask(self, window: Tensor) -> Tensor:
        return self._network(window.permute(0, 2, 3, 1).to(torch.uint8))


@dataclass(frozen=True, slots=True)
class Way:
    """One way of analysing the slide."""

    models: Models
    spec: PipelineSpec
    pool: Callable[[], SerialPool | OrderedThreadPool]


def against(analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield how many times as long the others take, and which part of the cells they share with us.

    On a slide as full of leukocytes as blood is, and on one many times as full.
    """
    networks = _Twins(*torch_segmenter(analyser.bundle), torch_classifier(analyser.bundle)[0])
    for name, side_px0, leukocytes in (
        ("end_to_end_slide", SIZE_PX0.width, LEUKOCYTES),
        ("crowded_slide", CROWDED_PX0, CROWD),
    ):
        smear = draw_smear(SmearSpec(Size(side_px0, side_px0), seed=11, leukocytes=leukocytes))
        path = folder / f"{name}.tif"
        write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
        with analyser.in_flight.scan():
            for measured, measure in _compared(_ways(analyser, networks, side_px0), path):
                yield f"{name}_{measured}", measure


@dataclass(frozen=True, slots=True)
class _Twins:
    """The shipped networks on torch."""

    segmenter: TorchSegmenter
    network: Net
    classifier: TorchClassifier


def _compared(ways: Mapping[str, Way], path: Path) -> Iterator[tuple[str, Measure]]:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, SlideAnalysis] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start_s = perf_counter()
            with open_slide(path) as reader, way.pool() as pool:
                found[name] = analyse_slide(reader, way.models, way.spec, Execution(AnalysisMonitor(), pool))
            taken[name].append(perf_counter() - start_s)
    ours_s = median(taken.pop(OURS))
    for name, seconds in taken.items():
        yield f"over_{name}", Measure(median(seconds) / ours_s, "×", 8)
        yield f"same_cells_as_{name}", Measure(same_cells(found[OURS], found[name]), "share", 0.99)


def _ways(analyser: SlideAnalyser, networks: _Twins, side_px0: int) -> Mapping[str, Way]:
    stride_px = networks.segmenter.stride_px
    whole_px = -(-side_px0 // stride_px) * stride_px
    everywhere = replace(analyser.spec, whole_up_to_tiles=MANY)
    monai = MonaiSegmenter(networks.network, stride_px)
    return {
        OURS: Way(analyser.models, analyser.spec, lambda: OrderedThreadPool(analyser.read_ahead)),
        "torch_loop": Way(Models(networks.segmenter, networks.classifier), everywhere, SerialPool),
        "monai": Way(
            Models(monai, networks.classifier),
            replace(everywhere, tile_core_px=whole_px),
            SerialPool,
        ),
    }


def same_cells(ours: SlideAnalysis, theirs: SlideAnalysis) -> float:
    """Return the share of the cells of both that the other has too: in the same place, of the same class."""
    everyone = len(ours.cells) + len(theirs.cells)
    shared = sum(_is_among(cell, theirs.cells, ours) for cell in ours.cells)
    shared += sum(_is_among(cell, ours.cells, ours) for cell in theirs.cells)
    return shared / everyone if everyone else 1.0


def _is_among(cell: Cell, others: Sequence[Cell], analysis: SlideAnalysis) -> bool:
    x, y = cell.instance.centroid_px0
    near_px0 = analysis.scale.mpp.to_px0(SAME_PLACE_UM)
    return any(
        other.call.cell_class is cell.call.cell_class
        and hypot(other.instance.centroid_px0[0] - x, other.instance.centroid_px0[1] - y) <= near_px0
        for other in others
    )
