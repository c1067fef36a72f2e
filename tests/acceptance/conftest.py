"""A house with a watcher and a worker at work, for a module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import House, house_on
from worker.embedded import EmbeddedSet


@pytest.fixture(scope="module")
def house(embedded: EmbeddedSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a house whose watcher and worker run."""
    folder: Path = tmp_path_factory.mktemp("house")
    with house_on(embedded, folder) as house:
        house.start("watch")
        house.start("worker")
        yield house
