"""The scaling of one run as a picture: scans a second against workers, and what would be ideal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_RATE = re.compile(r"scans_per_s_(\d+)(_sleeping)?_workers")


def draw_scaling(values: Mapping[str, float], target: Path) -> None:
    """Write a PNG with one panel for real networks and one for sleeping ones; nothing where none ran."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = {
        "real networks, one thread each": _rates(values, ""),
        "networks that sleep": _rates(values, "_sleeping"),
    }
    if not any(panels.values()):
        return
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for position, (title, rates) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, 2, position)
        workers = sorted(rates)
        axes.plot(workers, [rates[count] for count in workers], marker="o", label="measured")
        if workers:
            one = rates[workers[0]] / workers[0]
            axes.plot(
                workers, [one * count for count in workers], linestyle="--", label="if none were in the way"
            )
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("workers")
        axes.set_ylabel("scans/s")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(target, dpi=90)


def _rates(values: Mapping[str, float], kind: str) -> dict[int, float]:
    found = ((_RATE.fullmatch(name), value) for name, value in values.items())
    return {int(match[1]): value for match, value in found if match and (match[2] or "") == kind}
