"""How fast leukoflow is, measured in one run: `make bench`. Writes build/bench.json and
build/scaling.png, and prints a table.

`python -m tests.bench NAME …` runs only those parts, and leaves the other lines of the table as they were.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.runtime.slide_analyser import SlideAnalyser
from tests.bench.against import against
from tests.bench.candidates import candidates
from tests.bench.ledger import ledger
from tests.bench.measure import Measure
from tests.bench.memory import memory
from tests.bench.networks import classification, slide
from tests.bench.peak import peak
from tests.bench.populated import populated
from tests.bench.scaling import scaling
from tests.bench.scaling_picture import draw_scaling
from tests.bench.stat import stat
from tests.bench.whole_way import whole_way
from worker.processing.analyser import open_analyser
from worker.settings import LocalSettings, load

TARGET = Path("build/bench.json")

Measures = Iterator[tuple[str, Measure]]
PARTS: dict[str, Callable[[SlideAnalyser, Path], Measures]] = {
    "classification": classification,
    "slide": slide,
    "candidates": candidates,
    "against": against,
    "peak": peak,
    "whole_way": whole_way,
    "stat": stat,
    "memory": memory,
    "scaling": scaling,
    "ledger": ledger,
    "populated": populated,
}


def main(asked: Sequence[str]) -> None:
    strange = [name for name in asked if name not in PARTS]
    if strange:
        sys.exit(f"there is no part '{strange[0]}'; there are {', '.join(PARTS)}")
    found = json.loads(TARGET.read_text()) if asked and TARGET.exists() else {}
    TARGET.parent.mkdir(exist_ok=True)
    print("| what | value | unit | target |\n|---|---|---|---|")
    with TemporaryDirectory() as folder, open_analyser(load(LocalSettings)) as analyser:
        for part in asked or PARTS:
            place = Path(folder) / part
            place.mkdir()
            for name, measure in PARTS[part](analyser, place):
                found[name] = asdict(measure)
                print(
                    f"| {name} | {measure.value:.3g} | {measure.unit} | {measure.target or ''} |", flush=True
                )
            TARGET.write_text(json.dumps(found, indent=1) + "\n")
    draw_scaling({name: line["value"] for name, line in found.items()}, TARGET.with_name("scaling.png"))


if __name__ == "__main__":
    main(sys.argv[1:])
