"""An analyst that tells drawn colours apart, for processes that are real in everything but their networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.run import Models
from pipeline.runtime.bundle_loader import load_bundle
from pipeline.runtime.concurrency.batcher import ScansInFlight
from pipeline.runtime.readers import DecodeLimits
from worker.processing.analyst import Analyst
from worker.settings import Settings


@contextmanager
def drawn_analyst(settings: Settings, models: Models) -> Iterator[Analyst]:
    """Return an analyst under the name of the settings' bundle that asks `models`."""
    bundle = load_bundle(settings.bundle, settings.profile)
    yield Analyst(
        models_for=lambda _asker: models,
        bundle=bundle,
        spec=bundle.manifest.spec,
        limits=DecodeLimits(max_level0_pixels=settings.max_pixels, max_file_bytes=settings.max_file_bytes),
        engine="drawn colours (tests)",
        read_ahead=1,
        in_flight=ScansInFlight(),
    )
