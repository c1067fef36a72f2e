"""An analyser that tells drawn colours apart, for processes in which all is real but the networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.run import Models
from pipeline.runtime.bundle_loader import load_bundle
from pipeline.runtime.concurrency.batcher import ScansInFlight
from pipeline.runtime.slide_analyser import SlideAnalyser
from worker.processing.analyser import decode_limits
from worker.settings import Settings


@contextmanager
def drawn_analyser(settings: Settings, models: Models) -> Iterator[SlideAnalyser]:
    """Return an analyser under the name of the settings' bundle that asks `models`."""
    bundle = load_bundle(settings.bundle, settings.profile)
    yield SlideAnalyser(
        models_for=lambda _asker: models,
        bundle=bundle,
        spec=bundle.manifest.spec,
        limits=decode_limits(settings),
        engine="drawn colours (tests)",
        read_ahead=1,
        in_flight=ScansInFlight(),
    )
