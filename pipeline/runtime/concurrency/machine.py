"""How many cores this process may use, and what follows from it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
_MAX_STREAMS = 8
"""a batch of tiles (batcher.MAX_TILES) cannot be split further"""
_UNLIMITED = "max"
PROCESSOR = Path("/proc/cpuinfo")
_INT8_INSTRUCTIONS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""instructions that accumulate int8 products in 32 bits; older ones saturate at 16 bits.
Source: Intel 64 and IA-32 manual, VPDPBUSD and VPMADDUBSW"""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How much runs at once in one process."""

    threads: int
    """threads of the networks"""
    streams: int
    """parts of a batch that an engine computes at once, sharing the threads"""
    read_ahead: int
    """tiles of a scan that are read ahead"""


@dataclass(frozen=True, slots=True)
class ParallelismOverrides:
    """What the user set; None: chosen to suit the machine."""

    threads: int | None = None
    streams: int | None = None
    read_ahead: int | None = None


def parallelism(cores: int, overrides: ParallelismOverrides) -> Parallelism:
    """Return the parallelism for `cores` cores (at least 1); overrides take precedence."""
    threads = overrides.threads or cores
    streams = overrides.streams or min(threads, _MAX_STREAMS)
    return Parallelism(threads, streams, overrides.read_ahead or max(4, 2 * streams))


def usable_cores(affinity: int, limits: Iterable[str]) -> int:
    """Return how many cores may be used: the affinity mask, capped by every limit.

    `limits` are texts of cgroup v2's `cpu.max`: `<quota µs or max> <period µs>`; others are ignored. A
    fraction of a core counts as one. Source: Linux, Documentation/admin-guide/cgroup-v2.rst
    """
    quotas = [_quota(limit) for limit in limits]
    return max(1, min([affinity, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _quota(limit: str) -> float | None:
    quota, _, period = limit.strip().partition(" ")
    if quota == _UNLIMITED or not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return int(quota) / int(period)


def available_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Return how many cores this process may use, given its affinity and its cgroups."""
    return usable_cores(len(os.sched_getaffinity(0)), _limits(cgroups, own))


def supports_int8(processor: Path = PROCESSOR) -> bool:
    """Return whether the processor sums int8 products without saturation."""
    lines = (line.partition(":") for line in _text(processor).splitlines())
    return any(
        key.strip() in ("flags", "Features") and not _INT8_INSTRUCTIONS.isdisjoint(flags.split())
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
