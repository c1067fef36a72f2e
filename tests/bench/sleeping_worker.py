"""A worker whose classifier sleeps as long as a GPU would compute: what is measured is everything else."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager

from pipeline.model.domain import Probabilities, Rgb
from pipeline.run import Models
from pipeline.runtime.slide_analyser import SlideAnalyser
from tests.support.drawn import ColourSegmenter, OneClassClassifier
from tests.support.drawn_analyser import drawn_analyser
from worker.observability import logs
from worker.processing.worker_process import run_worker
from worker.settings import Settings, load

SLEEP_S = 2.0
"""a scan: a slide of 10⁹ px on a GPU that segments 500 Mpx/s"""


class SleepingClassifier(OneClassClassifier):
    """Names every cell the same, after a while."""

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (3, N, L)."""
        time.sleep(SLEEP_S)
        return super().classify(batch)


def sleeping_analyser(settings: Settings) -> AbstractContextManager[SlideAnalyser]:
    """Return an analyser that tells drawn colours apart and sleeps once a scan of one cell."""
    return drawn_analyser(settings, Models(ColourSegmenter(), SleepingClassifier()))


if __name__ == "__main__":
    logs.configure("warning")
    sys.exit(run_worker(load(Settings), sleeping_analyser))
