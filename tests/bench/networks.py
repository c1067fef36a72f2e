"""The networks by themselves, and what a slide takes beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Size
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.readers import open_slide
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from tests.bench.asked import Asked
from tests.bench.measure import ROUNDS, Measure, seconds

SIZE_PX0 = Size(4096, 4096)
LEUKOCYTES = 16
"""on so much of a monolayer, one for 700 red cells. Source: Bain, Blood Cells, 6th ed.: 4 to 10 ·10⁹/l
leukocytes to 4 to 6 ·10¹²/l red cells"""


def classification(analyser: SlideAnalyser, _folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield the rate of the classifiers, and what their batches bring."""
    crops, classify = _crops(analyser), analyser.models.classifier.classify
    batched_s = seconds(lambda: classify(crops))
    single_s = seconds(lambda: [classify(crops[i : i + 1]) for i in range(len(crops))])
    yield "classified_cells_per_s", Measure(len(crops) / batched_s, "cells/s")
    yield "batched_over_single_cells", Measure(single_s / batched_s, "×")


def cells_per_s(analyser: SlideAnalyser) -> float:
    """Return the rate of the classifiers alone, in full batches."""
    crops = _crops(analyser)
    return len(crops) / seconds(lambda: analyser.models.classifier.classify(crops))


def _crops(analyser: SlideAnalyser) -> Rgb:
    side = analyser.models.classifier.crop_px
    return np.random.default_rng(0).integers(0, 255, (64, side.height, side.width, 3), np.uint8)


def slide(analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield what slides take over what their networks take alone, and the shares of the stages.

    One as full of leukocytes as blood is, one ten times as full.
    """
    for name, leukocytes in (("slide", LEUKOCYTES), ("crowded_slide", 10 * LEUKOCYTES)):
        path = drawn_slide(folder / f"{name}.tif", leukocytes)
        wall_s, watch = timed(analyser, path)
        engine_s = engine_alone_s(analyser, path)
        yield f"{name}_wall_over_engine", Measure(wall_s / engine_s, "×", 1.25)
        yield f"{name}_megapixels_per_s", Measure(SIZE_PX0.area / 1e6 / wall_s, "Mpx/s")
        for stage, stage_s in watch.timings_s:
            yield f"{name}_{stage}_share", Measure(stage_s / wall_s, "of the wall time")


def drawn_slide(path: Path, leukocytes: int) -> Path:
    """Return the file of a drawn slide of `SIZE_PX0`."""
    smear = draw_smear(SmearSpec(SIZE_PX0, seed=3, leukocytes=leukocytes))
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    return path


def timed(analyser: SlideAnalyser, path: Path) -> tuple[float, AnalysisMonitor]:
    """Return how long a scan takes, median of several after one to warm up, and the stages of the last."""
    taken: list[float] = []
    for _ in range(ROUNDS + 1):
        watch = AnalysisMonitor()
        with open_slide(path) as reader:
            start_s = perf_counter()
            analyser.analyse(reader, "0" * 64, watch)
            taken.append(perf_counter() - start_s)
    return median(taken[1:]), watch


def engine_alone_s(analyser: SlideAnalyser, path: Path) -> float:
    """Return how long the networks alone take for what an analysis of the scan asks of them."""
    asked = Asked(analyser.models)
    noting = replace(analyser, models_for=lambda _asker: asked.models)
    with open_slide(path) as reader:
        noting.analyse(reader, "0" * 64, AnalysisMonitor())
    with analyser.in_flight.scan():
        return asked.seconds_alone(analyser.read_ahead)
