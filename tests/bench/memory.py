"""How much memory and time scans of growing size take, each analysed by a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.model.geometry import Size
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from tests.bench.measure import Measure

SIDES_PX0 = (4096, 8192, 16_384, 32_768)
LEUKOCYTES = 200
GROWTH_TARGET = 1.15
_MEASURED = """
import json, sys
from pathlib import Path
from worker.processing.analyser import open_analyser
from worker.settings import LocalSettings, load
from time import perf_counter
from pipeline.runtime.analysis_monitor import AnalysisMonitor
with open_analyser(load(LocalSettings)) as analyser, analyser.open(Path(sys.argv[1])) as reader:
    start_s = perf_counter()
    cells = len(analyser.analyse(reader, "0" * 64, AnalysisMonitor()).analysis.cells)
    taken_s = perf_counter() - start_s
# Not getrusage's: that peak is the greater of ours and our parent's at the fork.
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps([int(peak.split()[1]), taken_s, cells]))
"""


def memory(_analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield time and peak of resident memory at each size, and how the peak grows from the smallest on."""
    peaks_mib: dict[int, float] = {}
    for side_px0 in SIDES_PX0:
        path = folder / f"memory-{side_px0}.tif"
        smear = draw_smear(SmearSpec(Size(side_px0, side_px0), seed=7, leukocytes=LEUKOCYTES))
        write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
        peaks_mib[side_px0], taken_s = _peak_mib_and_s(path)
        path.unlink()
        yield f"peak_rss_{side_px0}", Measure(peaks_mib[side_px0], "MiB")
        yield f"analysis_{side_px0}", Measure(taken_s, "s")
    growth = peaks_mib[SIDES_PX0[-1]] / peaks_mib[SIDES_PX0[0]]
    yield f"peak_rss_{SIDES_PX0[-1]}_over_{SIDES_PX0[0]}", Measure(growth, "×", GROWTH_TARGET)


def _peak_mib_and_s(scan: Path) -> tuple[float, float]:
    run = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(scan)], capture_output=True, text=True, check=True
    )
    kib, taken_s, cells = json.loads(run.stdout.splitlines()[-1])
    assert cells > 0, "nothing was found: the peak would be of nothing"
    return float(kib) / 1024, float(taken_s)
