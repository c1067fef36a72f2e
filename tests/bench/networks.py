"""The networks by themselves, and what a slide takes beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np

from pipeline.domain import Rgb
from pipeline.execution import Execution
from pipeline.geometry import Size
from pipeline.run import analyse_slide
from pipeline.runtime.prefetch import prefetch
from pipeline.runtime.readers import open_slide
from pipeline.runtime.tiff_writer import write_pyramid
from pipeline.synth.smear import draw_smear
from pipeline.synth.spec import SmearSpec
from tests.bench.measure import Measure, seconds
from worker.analyst import Analyst
from worker.stopwatch import Stopwatch


def classification(analyst: Analyst, _folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield the rate of the classifiers, and what their batches bring."""
    crops, classify = _crops(analyst), analyst.models.classifier.classify
    batched_s = seconds(lambda: classify(crops))
    single_s = seconds(lambda: [classify(crops[i : i + 1]) for i in range(len(crops))])
    yield "classified_cells_per_s", Measure(len(crops) / batched_s, "cells/s")
    yield "batched_over_single_cells", Measure(single_s / batched_s, "×")


def cells_per_s(analyst: Analyst) -> float:
    """Return the rate of the classifiers alone, in full batches."""
    crops = _crops(analyst)
    return len(crops) / seconds(lambda: analyst.models.classifier.classify(crops))


def seconds_a_tile(analyst: Analyst) -> float:
    """Return how long the segmenter alone takes for a tile with its halo, in a batch."""
    side = analyst.spec.tile_core_px + 2 * analyst.spec.halo_px
    tiles = np.random.default_rng(0).integers(0, 255, (4, side, side, 3), np.uint8)
    return seconds(lambda: analyst.models.segmenter.segment(tiles)) / len(tiles)


def _crops(analyst: Analyst) -> Rgb:
    side = analyst.models.classifier.crop_px
    return np.random.default_rng(0).integers(0, 255, (64, side.height, side.width, 3), np.uint8)


def slide(analyst: Analyst, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield what a slide takes over its segmentation, and the shares of the stages."""
    smear = draw_smear(SmearSpec(Size(4096, 4096), seed=3, leukocytes=150))
    path = folder / "slide.tif"
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    watch = Stopwatch()
    with open_slide(path) as reader:
        start_s = perf_counter()
        execution = Execution(watch, prefetch(analyst.read_ahead))
        analysis = analyse_slide(reader, analyst.models, analyst.spec, execution)
        wall_s = perf_counter() - start_s
    engine_s = seconds_a_tile(analyst) * analysis.tiles.analysed
    yield "slide_wall_over_segmentation_engine", Measure(wall_s / engine_s, "×", 1.25)
    yield "slide_megapixels_per_s", Measure(smear.spec.size_px0.area / 1e6 / wall_s, "Mpx/s")
    for stage, stage_s in watch.timings_s:
        yield f"slide_{stage}_share", Measure(stage_s / wall_s, "of the wall time")
