"""Balanced sampling, and batches prepared in the background while the network trains."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.training.recipe.recipes import Balance

T = TypeVar("T")
_QUEUED_BATCHES = 4
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures with their targets."""

    rgb: Tensor
    """uint8 (N, H, W, 3)"""
    target: Tensor
    """as the task defines it"""


class BalancedDraw:
    """Draws indices: a class by its size to a power, then one of its data sets likewise, then a sample."""

    def __init__(self, keys: Sequence[tuple[Hashable, str]], balance: Balance) -> None:
        """`keys` are (class, folder) by sample."""
        members: dict[tuple[Hashable, str], list[int]] = {}
        for index, key in enumerate(keys):
            members.setdefault(key, []).append(index)
        sizes: dict[Hashable, int] = {}
        for (name, _), indices in members.items():
            sizes[name] = sizes.get(name, 0) + len(indices)
        shares: dict[Hashable, float] = {}
        for (name, _), indices in members.items():
            shares[name] = shares.get(name, 0.0) + len(indices) ** balance.folder_power
        weights = np.array(
            [
                sizes[name] ** balance.class_power * len(indices) ** balance.folder_power / shares[name]
                for (name, _), indices in members.items()
            ]
        )
        self._buckets = [np.array(indices) for indices in members.values()]
        self._weights = weights / weights.sum()

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """Return `count` indices."""
        chosen = rng.choice(len(self._buckets), size=count, p=self._weights)
        return [int(rng.choice(self._buckets[bucket])) for bucket in chosen]


def stacked(pictures: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> Tensor:
    """Return uint8 (N, …) of pictures or label maps."""
    return torch.from_numpy(np.stack(pictures))


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """Yield the items in order; a thread prepares a few in advance. Its exceptions are raised here."""
    queue: Queue[T | BaseException | None] = Queue(_QUEUED_BATCHES)
    stop = threading.Event()

    def offer(item: T | BaseException | None) -> None:
        while not stop.is_set():
            try:
                queue.put(item, timeout=_POLL_S)
                return
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                offer(item)
                if stop.is_set():
                    return
            offer(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the reader
            offer(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=_POLL_S)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
