"""A deployment with a watcher and a worker at work, for a module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, deployment_on
from worker.embedded import EmbeddedSet


@pytest.fixture(scope="module")
def deployment(embedded: EmbeddedSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Return a deployment whose watcher and worker run."""
    folder: Path = tmp_path_factory.mktemp("deployment")
    with deployment_on(embedded, folder, engine="auto", settle_s="0.2") as deployment:
        deployment.start("watch")
        deployment.start("worker")
        yield deployment
