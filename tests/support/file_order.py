"""Which files of tests come first.

Two processes share the files, and each takes the next one when it is done: where the longest come last, one
process waits for the other.
"""

from __future__ import annotations

import pytest

SLOWEST_FIRST: tuple[str, ...] = ()
"""files that take ten seconds and more, by `make test PYTEST_ARGS=--junitxml=build/tests.xml`"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first; all else stays as it was."""
    places = {file: place for place, file in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))
