"""Long listings, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

PAGE = 2000
"""Objects that are compared with the ledger in one transaction."""


def pages(items: Iterable[T], size: int = PAGE) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while page := list(islice(iterator, size)):
        yield page
