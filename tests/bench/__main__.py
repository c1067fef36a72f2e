"""How fast leukoflow is, measured in one run: `make bench`. Writes build/bench.json and prints a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from pipeline.geometry import Size
from pipeline.run import Execution, analyse_slide
from pipeline.runtime.prefetch import prefetch
from pipeline.runtime.readers import open_slide
from pipeline.runtime.tiff_writer import write_pyramid
from pipeline.synth.smear import draw_smear
from pipeline.synth.spec import SmearSpec
from tests.bench.ledger import ledger
from tests.bench.measure import Measure, seconds
from worker.analyst import Analyst, open_analyst
from worker.settings import load_local_settings
from worker.stopwatch import Stopwatch

TARGET = Path("build/bench.json")


def measures(folder: Path) -> Iterator[tuple[str, Measure]]:
    with open_analyst(load_local_settings()) as analyst:
        yield from classification(analyst)
        yield from slide(analyst, folder)
    yield from ledger(folder)


def classification(analyst: Analyst) -> Iterator[tuple[str, Measure]]:
    side = analyst.models.classifier.crop_px
    crops = np.random.default_rng(0).integers(0, 255, (64, side.height, side.width, 3), np.uint8)
    classify = analyst.models.classifier.classify
    batched_s = seconds(lambda: classify(crops))
    single_s = seconds(lambda: [classify(crops[i : i + 1]) for i in range(len(crops))])
    yield "classified_cells_per_s", Measure(len(crops) / batched_s, "cells/s")
    yield "batched_over_single_cells", Measure(single_s / batched_s, "×")


def slide(analyst: Analyst, folder: Path) -> Iterator[tuple[str, Measure]]:
    smear = draw_smear(SmearSpec(Size(4096, 4096), seed=3, leukocytes=150))
    path = folder / "slide.tif"
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    watch = Stopwatch()
    with open_slide(path) as reader:
        start_s = perf_counter()
        analysis = analyse_slide(reader, analyst.models, analyst.spec, Execution(watch, prefetch(4)))
        wall_s = perf_counter() - start_s
    side = analyst.spec.tile_core_px + 2 * analyst.spec.halo_px
    tile = np.random.default_rng(0).integers(0, 255, (4, side, side, 3), np.uint8)
    engine_s = seconds(lambda: analyst.models.segmenter.segment(tile)) / 4 * analysis.tiles.analysed
    yield "slide_wall_over_segmentation_engine", Measure(wall_s / engine_s, "×", 1.25)
    yield "slide_megapixels_per_s", Measure(smear.spec.size_px0.area / 1e6 / wall_s, "Mpx/s")
    for stage, stage_s in watch.timings_s:
        yield f"slide_{stage}_share", Measure(stage_s / wall_s, "of the wall time")


def main() -> None:
    with TemporaryDirectory() as folder:
        found = dict(measures(Path(folder)))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps({name: asdict(m) for name, m in found.items()}, indent=1) + "\n")
    print("| what | value | unit | target |\n|---|---|---|---|")
    for name, measure in found.items():
        print(f"| {name} | {measure.value:.3g} | {measure.unit} | {measure.target or ''} |")


if __name__ == "__main__":
    main()
