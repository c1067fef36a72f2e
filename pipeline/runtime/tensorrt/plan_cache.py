"""Plans on disk: each is built once, by one process, and never read incomplete."""

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
    """Everything that a plan depends on."""

    graph_sha256: str
    tensorrt: str
    """name and version of the module that builds it"""
    compute_capability: str
    profile: str
    precision: str
    calibration_sha256: str = ""
    """of the pictures used for int8 calibration"""

    @property
    def digest(self) -> str:
        """sha256 of the key, which names the file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def machine(self) -> str:
        """What kernel timings depend on, as part of a file name."""
        return hashlib.sha256(f"{self.tensorrt} {self.compute_capability}".encode()).hexdigest()[:16]


class PlanCache:
    """A folder of plans, shared by processes. A file is a line of JSON (key, sha256, bytes) and the plan."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plan(self, key: PlanKey, build: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
        """Return the plan of `key`; it is built if it is missing or damaged.

        `build` takes the timing cache and returns (plan, timing cache). If several processes need
        it at once, one builds and the others wait. Raises: DeploymentError, where the folder is not writable.
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
                f"TensorRT plans cannot be stored in {self._folder}: {error.strerror or error}.",
                code="plan_folder",
            ) from error

    def stored(self, key: PlanKey) -> bytes | None:
        """Return the plan of `key` from disk; None where it is missing or damaged."""
        try:
            with self.file_of(key).open("rb") as file:
                header = json.loads(file.readline(_LONGEST_HEADER_BYTES))
                plan = file.read()
        except (OSError, ValueError):
            return None
        return plan if header == _header(key, plan) else None

    def file_of(self, key: PlanKey) -> Path:
        """Return the file name of the plan of `key`."""
        return self._folder / f"{key.digest}.plan"

    def _built(self, key: PlanKey, build: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
        for leftover in self._folder.glob(
            f"{key.digest}.plan.*.part"
        ):  # of a process that died while writing
            leftover.unlink(missing_ok=True)
        timings = self._folder / f"{key.machine}.timing"
        plan, new_timings = build(timings.read_bytes() if timings.is_file() else b"")
        header = json.dumps(_header(key, plan), sort_keys=True).encode()
        _write(self.file_of(key), header + b"\n" + plan)
        if new_timings:
            _write(timings, new_timings)
        return plan

    @contextmanager
    def _locked(self, key: PlanKey) -> Iterator[None]:
        """Return a context that holds the key's lock; the kernel releases it when the process dies.

        The lock file is never deleted: processes that lock one name must lock the same file.
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
    """Write `file` completely or not at all, even on power failure."""
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
