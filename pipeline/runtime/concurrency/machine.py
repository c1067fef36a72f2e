"""How many cores this process may use, and what follows from it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
_MOST_STREAMS = 8
"""a batch of tiles (batcher.TILES_AT_ONCE) falls apart into no more parts"""
_UNLIMITED = "max"
PROCESSOR = Path("/proc/cpuinfo")
_BYTE_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""instructions that add products of bytes in 32 bits; those before them clip at 16.
Source: Intel 64 and IA-32 manual, VPDPBUSD and VPMADDUBSW"""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """What runs at once in one process."""

    threads: int
    """that the networks compute with"""
    streams: int
    """parts of a batch that an engine computes at once, each with its share of the threads"""
    read_ahead: int
    """tiles of a scan that are read before they are asked for"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person set; None follows from the machine."""

    threads: int | None = None
    streams: int | None = None
    read_ahead: int | None = None


def parallelism(cores: int, asked: Asked) -> Parallelism:
    """Return what suits `cores` (at least 1), save what was asked for."""
    threads = asked.threads or cores
    streams = asked.streams or min(threads, _MOST_STREAMS)
    return Parallelism(threads, streams, asked.read_ahead or max(4, 2 * streams))


def usable_cores(affinity: int, limits: Iterable[str]) -> int:
    """Return how many cores may be used: those of the affinity mask, within every limit.

    `limits` are texts of cgroup v2's `cpu.max`: `<quota µs or max> <period µs>`; others are passed over. Part
    of a core counts as one. Source: Linux, Documentation/admin-guide/cgroup-v2.rst
    """
    quotas = [_quota(limit) for limit in limits]
    return max(1, min([affinity, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _quota(limit: str) -> float | None:
    quota, _, period = limit.strip().partition(" ")
    if quota == _UNLIMITED or not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return int(quota) / int(period)


def available_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Return how many cores this process may use, by its affinity, its cgroup and those above it."""
    return usable_cores(len(os.sched_getaffinity(0)), _limits(cgroups, own))


def supports_int8(processor: Path = PROCESSOR) -> bool:
    """Return whether the processor adds products of bytes without clipping them."""
    lines = (line.partition(":") for line in _text(processor).splitlines())
    return any(
        key.strip() in ("flags", "Features") and not _BYTE_PRODUCTS.isdisjoint(flags.split())
        for key, _, flags in lines
    )


def _limits(cgroups: Path, own: Path) -> list[str]:
    """Return the texts of `cpu.max` from the process's group upwards; none without cgroup v2."""
    lines = _text(own).splitlines()
    place = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    parts = [part for part in place.split("/") if part not in ("", "..")]
    folders = [cgroups.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return [_text(folder / "cpu.max") for folder in folders]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
