"""A worker whose classifier sleeps as long as a GPU would compute: what is measured is everything else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.domain import Probabilities, Rgb
from pipeline.run import Models
from pipeline.runtime.batcher import InFlight
from pipeline.runtime.bundle import load_bundle
from pipeline.runtime.readers import DecodeLimits
from tests.drawn import ColourSegmenter, OneClassClassifier
from worker import logs
from worker.analyst import Analyst
from worker.settings import Settings, load_settings
from worker.tasks import run_worker

SLEEP_S = 2.0
"""a scan: a slide of 10⁹ px on a GPU that segments 500 Mpx/s"""


class SleepingClassifier(OneClassClassifier):
    """Names every cell the same, after a while."""

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (3, N, L)."""
        time.sleep(SLEEP_S)
        return super().classify(batch)


@contextmanager
def sleeping_analyst(settings: Settings) -> Iterator[Analyst]:
    """Return an analyst that tells drawn colours apart and sleeps once a scan of one cell."""
    bundle = load_bundle(settings.bundle, settings.profile)
    models = Models(ColourSegmenter(), SleepingClassifier())
    yield Analyst(
        models_for=lambda _asker: models,
        bundle=bundle,
        spec=bundle.manifest.spec,
        limits=DecodeLimits(max_level0_pixels=settings.max_pixels, max_file_bytes=settings.max_file_bytes),
        engine="sleeping (bench)",
        read_ahead=1,
        in_flight=InFlight(),
    )


if __name__ == "__main__":
    logs.configure("warning")
    sys.exit(run_worker(load_settings(), sleeping_analyst))
