"""The analyser that the settings ask for."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pipeline.runtime.concurrency.machine import ParallelismOverrides
from pipeline.runtime.readers import DecodeLimits
from pipeline.runtime.slide_analyser import AnalyserOptions, SlideAnalyser, open_slide_analyser
from worker.settings import LocalSettings


def open_analyser(settings: LocalSettings) -> AbstractContextManager[SlideAnalyser]:
    """Return a context with the open analyser. Raises: on entry, what `open_slide_analyser` raises."""
    return open_slide_analyser(
        AnalyserOptions(
            bundle=settings.bundle,
            profile=settings.profile,
            engine=settings.engine,
            parallelism=ParallelismOverrides(settings.threads, settings.streams, settings.read_ahead),
            plans_dir=settings.plans_dir,
            limits=decode_limits(settings),
        )
    )


def decode_limits(settings: LocalSettings) -> DecodeLimits:
    """Return how much of the machine one scan may take."""
    return DecodeLimits(max_level0_pixels=settings.max_pixels, max_file_bytes=settings.max_file_bytes)
