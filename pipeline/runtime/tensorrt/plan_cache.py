"""Plans on disk: built once for what they are built for, by one process, and never read half."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.model.errors import DeploymentError

_LONGEST_HEADER_BYTES = 8192


def default_plans_dir() -> Path:
    """Return the folder where plans are kept if no other was named."""
    return Path.home() / ".cache" / "leukoflow" / "plans"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan depends on; anything else in it, another plan."""

    graph_sha256: str
    tensorrt: str
    """name and version of the module that builds"""
    compute_capability: str
    profile: str
    precision: str
    calibration_sha256: str = ""
    """of the pictures that int8 was calibrated on"""

    @property
    def digest(self) -> str:
        """sha256 of the key, which names the file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def machine(self) -> str:
        """What timings of kernels depend on, as part of a file's name."""
        return hashlib.sha256(f"{self.tensorrt} {self.compute_capability}".encode()).hexdigest()[:16]


class PlanCache:
    """A folder of plans, shared by processes. A file is a line of JSON (key, sha256, bytes) and the plan."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plan(self, key: PlanKey, build: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
        """Return the plan of `key`, built where there is none, or a damaged one.

        `build` takes the timing cache and returns (plan, timing cache). Of processes that ask at once, one
        builds; the others wait for it. Raises: DeploymentError, where the folder takes no files.
        """
        found = self.stored(key)
        if found is not None:
            return found
        try:
            with self._locked(key):
                found = self.stored(key)
                return self._built(key, build) if found is None else found
        except OSError as error:
            raise DeploymentError(
                f"TensorRT cannot keep plans in {self._folder}: {error.strerror or error}.",
                code="plan_folder",
            ) from error

    def stored(self, key: PlanKey) -> bytes | None:
        """Return the plan of `key` as it is on disk; None where there is none, or it is damaged."""
        try:
            with self.file_of(key).open("rb") as file:
                header = json.loads(file.readline(_LONGEST_HEADER_BYTES))
                plan = file.read()
        except (OSError, ValueError):
            return None
        return plan if header == _header(key, plan) else None

    def file_of(self, key: PlanKey) -> Path:
        """Return where the plan of `key` is, or would be."""
        return self._folder / f"{key.digest}.plan"

    def _built(self, key: PlanKey, build: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
        for left in self._folder.glob(f"{key.digest}.plan.*.part"):  # by a process that died over it
            left.unlink(missing_ok=True)
        timings = self._folder / f"{key.machine}.timing"
        plan, learnt = build(timings.read_bytes() if timings.is_file() else b"")
        header = json.dumps(_header(key, plan), sort_keys=True).encode()
        _write(self.file_of(key), header + b"\n" + plan)
        if learnt:
            _write(timings, learnt)
        return plan

    @contextmanager
    def _locked(self, key: PlanKey) -> Iterator[None]:
        """Hold the key's lock, which the kernel releases when its holder dies.

        Its file stays: two processes that lock one name must lock one file.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / f"{key.digest}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _header(key: PlanKey, plan: bytes) -> dict[str, str | int]:
    return {**asdict(key), "sha256": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)}


def _write(file: Path, body: bytes) -> None:
    """Write `file` whole or not at all, also where the power goes."""
    part = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as writing:
            writing.write(body)
            writing.flush()
            os.fsync(writing.fileno())
        part.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        part.unlink(missing_ok=True)
