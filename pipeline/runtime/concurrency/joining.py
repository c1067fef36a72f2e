"""Joins the parts of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound="np.generic[Any]")


def joined(parts: Iterable[NDArray[T]]) -> NDArray[T]:
    """Return the parts, at least one, joined along axis 0; a single part is not copied, since maps are
    large.
    """
    first, *others = parts
    return np.concatenate([first, *others]) if others else first
