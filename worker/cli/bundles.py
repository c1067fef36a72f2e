"""The bundle that a person asked for: where it does not fit, that is one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.bundle.manifest import Profile
from pipeline.model.errors import DeploymentError, UsageError
from pipeline.runtime.bundle_loader import Bundle, load_bundle
from pipeline.runtime.concurrency.machine import supports_int8
from pipeline.runtime.engine_choice import precision_in_use
from pipeline.runtime.engines.engine_port import EngineName
from pipeline.runtime.slide_analyser import SlideAnalyser
from worker.processing.analyser import open_analyser
from worker.settings import LocalSettings, load

ProfileOption = Annotated[
    Profile | None,
    typer.Option(help="Which segmenters are asked; none: LEUKOFLOW_PROFILE, and without it the fast one."),
]


EngineOption = Annotated[
    EngineName | None,
    typer.Option(help="What runs the networks; none: LEUKOFLOW_ENGINE, and without it what suits here."),
]


def asked_settings(
    bundle: Path | None, profile: Profile | None, engine: EngineName | None = None
) -> LocalSettings:
    """Return the settings of the environment, with what was given on the command line before them."""
    given = {"bundle": bundle, "profile": profile, "engine": engine}
    return load(LocalSettings, **{name: value for name, value in given.items() if value is not None})


@contextmanager
def asked_analyser(
    bundle: Path | None, profile: Profile | None, engine: EngineName | None = None
) -> Iterator[SlideAnalyser]:
    """Return an open analyser, as `open_analyser`.

    Raises: UsageError, where the bundle does not fit; DeploymentError, where the engine lacks something.
    """
    with ExitStack() as stack:
        try:
            analyser = stack.enter_context(open_analyser(asked_settings(bundle, profile, engine)))
        except DeploymentError as error:
            if not error.code.startswith("bundle"):
                raise
            raise _mistake(error) from error
        yield analyser


def asked_profile(profile: Profile | None) -> Profile:
    """Return the profile that our own workers will use. Raises: UsageError, where their bundle lacks it."""
    settings = asked_settings(None, profile)
    return asked_bundle(settings.bundle, settings.profile).profile


def asked_bundle(folder: Path | None, profile: Profile = Profile.FAST) -> Bundle:
    """Return the verified bundle of a folder. Raises: UsageError, where it does not fit."""
    try:
        return load_bundle(folder, profile)
    except DeploymentError as error:
        raise _mistake(error) from error


def bundle_in_use(settings: LocalSettings) -> Bundle:
    """Return the verified bundle as an analysis here would use it: its digest is the one that results carry.

    Raises: UsageError, where the bundle does not fit.
    """
    bundle = asked_bundle(settings.bundle, settings.profile)
    return replace(bundle, precision=precision_in_use(settings.engine, supports_int8()))


def _mistake(error: DeploymentError) -> UsageError:
    return UsageError(error.sentence, code=error.code)
