"""Plans on disk: one build for many processes, and never a plan that is not what was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from pipeline.model.errors import DeploymentError
from pipeline.runtime.tensorrt.plan_cache import PlanCache, PlanKey

KEY = PlanKey("a" * 64, "11.4.1", "8.9", "1x8x8..4x8x8..8x8x8", "fp16", "c" * 64)

WORKER = """
import os, sys
from pathlib import Path
from pipeline.runtime.tensorrt.plan_cache import PlanCache, PlanKey

folder, key = Path(sys.argv[1]), PlanKey(*sys.argv[2:])

def build(timing_cache):
    with (folder.parent / "builds").open("a") as log:
        log.write(f"{os.getpid()}\\n")
    print("building", flush=True)
    sys.stdin.read()  # builds until the test closes its input
    return b"plan " * 100_000, timing_cache + b"t"

print("ready", flush=True)
plan = PlanCache(folder).plan(key, build)
print(len(plan), flush=True)
"""


def worker(folder, key=KEY):
    values = [getattr(key, field.name) for field in fields(key)]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), *values],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def builds(folder):
    log = folder.parent / "builds"
    return log.read_text().split() if log.exists() else []


def refused(_timing_cache):
    raise AssertionError("built again")


def once(plan=b"plan"):
    return lambda timing_cache: (plan, timing_cache)


def test_of_processes_that_start_at_once_one_builds_and_all_get_its_plan(tmp_path):
    folder = tmp_path / "plans"
    started = [worker(folder) for _ in range(4)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.close()
    lengths = [process.stdout.read().split()[-1] for process in started]
    assert all(process.wait() == 0 for process in started)
    assert lengths == ["500000"] * 4
    assert len(builds(folder)) == 1


def test_who_waits_for_a_builder_that_is_killed_builds_itself(tmp_path):
    folder = tmp_path / "plans"
    first = worker(folder)
    assert [first.stdout.readline(), first.stdout.readline()] == ["ready\n", "building\n"]
    second = worker(folder)
    assert second.stdout.readline() == "ready\n"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert second.stdout.readline() == "building\n"
    second.stdin.close()
    assert second.stdout.read() == "500000\n"
    assert second.wait() == 0
    assert builds(folder) == [str(first.pid), str(second.pid)]


def test_different_keys_are_built_at_the_same_time(tmp_path):
    folder = tmp_path / "plans"
    first, second = worker(folder), worker(folder, replace(KEY, precision="int8"))
    for process in (first, second):
        assert [process.stdout.readline(), process.stdout.readline()] == ["ready\n", "building\n"]
    for process in (first, second):
        process.stdin.close()
        assert process.stdout.read() == "500000\n"
        process.wait()


def test_a_plan_is_kept_and_not_built_again(tmp_path):
    assert PlanCache(tmp_path).plan(KEY, once(b"kept")) == b"kept"
    assert PlanCache(tmp_path).plan(KEY, refused) == b"kept"


@pytest.mark.parametrize("field", [field.name for field in fields(PlanKey)])
def test_whatever_differs_is_another_plan(tmp_path, field):
    cache = PlanCache(tmp_path)
    cache.plan(KEY, once(b"one"))
    assert cache.plan(replace(KEY, **{field: "other"}), once(b"two")) == b"two"
    assert cache.plan(KEY, refused) == b"one"


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "headless", "another's"])
def test_a_damaged_plan_is_built_again(tmp_path, damage):
    cache = PlanCache(tmp_path)
    cache.plan(KEY, once(b"good plan"))
    other = replace(KEY, precision="fp32")
    cache.plan(other, once(b"other plan"))
    file = cache.file_of(KEY)
    body = file.read_bytes()
    damaged = {
        "cut": body[:-1],
        "flipped": body[:-1] + bytes([body[-1] ^ 1]),
        "emptied": b"",
        "headless": b"\xff" * 20_000,
        "another's": cache.file_of(other).read_bytes(),
    }
    file.write_bytes(damaged[damage])
    assert cache.stored(KEY) is None
    assert cache.plan(KEY, once(b"good plan")) == b"good plan"
    assert cache.plan(KEY, refused) == b"good plan"


def test_a_failed_build_leaves_nothing_to_be_read(tmp_path):
    def fails(_timing_cache):
        raise DeploymentError("no", code="plan_unbuilt")

    cache = PlanCache(tmp_path)
    with pytest.raises(DeploymentError):
        cache.plan(KEY, fails)
    assert cache.stored(KEY) is None
    assert cache.plan(KEY, once()) == b"plan"


def test_timings_are_handed_on_to_the_next_plan_of_the_same_gpu_and_version_only(tmp_path):
    cache, seen = PlanCache(tmp_path), []

    def build(timing_cache):
        seen.append(timing_cache)
        return b"plan", b"timings"

    cache.plan(KEY, build)
    cache.plan(replace(KEY, precision="int8"), build)
    cache.plan(replace(KEY, compute_capability="9.0"), build)
    cache.plan(replace(KEY, tensorrt="11.5"), build)
    assert seen == [b"", b"timings", b"", b""]


def test_what_a_dead_builder_left_is_cleared_away(tmp_path):
    cache = PlanCache(tmp_path)
    left = tmp_path / f"{KEY.digest}.plan.123-456.part"
    left.write_bytes(b"half a pl")
    cache.plan(KEY, once())
    assert not left.exists()
    assert list(tmp_path.glob("*.part")) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DeploymentError, match="cannot be stored"):
        PlanCache(blocked / "plans").plan(KEY, once())
