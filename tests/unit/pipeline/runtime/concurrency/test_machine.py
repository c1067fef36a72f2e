"""What follows from cores, affinity and the limits of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.runtime.concurrency.machine import (
    Parallelism,
    ParallelismOverrides,
    available_cores,
    parallelism,
    supports_int8,
    usable_cores,
)


@pytest.mark.parametrize(
    ("affinity", "limits", "cores"),
    [
        (8, [], 8),
        (8, ["max 100000"], 8),
        (8, ["200000 100000"], 2),
        (8, ["150000 100000"], 2),
        (8, ["20000 100000\n"], 1),
        (2, ["800000 100000"], 2),
        (8, ["max 100000", "300000 100000", "600000 100000"], 3),
        (8, ["", "nonsense", "100000", "1 0"], 8),
        (0, [], 1),
    ],
)
def test_the_tightest_limit_counts(affinity: int, limits: list[str], cores: int) -> None:
    assert usable_cores(affinity, limits) == cores


@pytest.mark.parametrize(
    ("cores", "asked", "expected"),
    [
        (1, ParallelismOverrides(), Parallelism(1, 1, 4)),
        (2, ParallelismOverrides(), Parallelism(2, 2, 4)),
        (6, ParallelismOverrides(), Parallelism(6, 6, 12)),
        (64, ParallelismOverrides(), Parallelism(64, 8, 16)),
        (64, ParallelismOverrides(threads=2), Parallelism(2, 2, 4)),
        (2, ParallelismOverrides(streams=1), Parallelism(2, 1, 4)),
        (2, ParallelismOverrides(threads=4, streams=2, read_ahead=1), Parallelism(4, 2, 1)),
    ],
)
def test_what_is_asked_for_goes_before_what_follows(
    cores: int, asked: ParallelismOverrides, expected: Parallelism
) -> None:
    assert parallelism(cores, asked) == expected


def _cgroups(folder: Path, place: str, limits: dict[str, str]) -> tuple[Path, Path]:
    root, own = folder / "cgroup", folder / "own"
    for below, limit in limits.items():
        (root / below).mkdir(parents=True, exist_ok=True)
        (root / below / "cpu.max").write_text(limit)
    own.write_text(place)
    return root, own


def test_a_limit_of_the_own_group_and_of_those_above(tmp_path: Path) -> None:
    limits = {"": "max 100000\n", "pods": "max 100000\n", "pods/worker": "50000 100000\n"}
    assert available_cores(*_cgroups(tmp_path, "0::/pods/worker\n", limits)) == 1
    limits = {"pods": "100000 100000\n", "pods/worker": "max 100000\n"}
    assert available_cores(*_cgroups(tmp_path, "0::/pods/worker\n", limits)) == 1


def test_inside_a_container_the_root_is_the_own_group(tmp_path: Path) -> None:
    assert available_cores(*_cgroups(tmp_path, "0::/../..\n", {"": "90000 100000\n"})) == 1


@pytest.mark.parametrize(
    ("cpuinfo", "exact"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n", True),
        ("Features\t: fp asimd asimddp\n", True),
        ("flags\t\t: fpu avx2\n", False),
        ("model name\t: avx_vnni\n", False),
        ("", False),
    ],
)
def test_old_processors_clip_sums_of_bytes(tmp_path: Path, cpuinfo: str, exact: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    assert supports_int8(file) is exact


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    everything = available_cores(nowhere, nowhere)
    assert everything >= 1
    old = _cgroups(tmp_path, "4:cpu:/other\n", {"other": "10000 100000\n"})
    assert available_cores(*old) == everything
