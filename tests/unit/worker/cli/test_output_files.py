"""A file is written whole, or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.model.errors import UsageError
from worker.cli.output_files import write_whole


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """What a full disk is to a program: writing fails on the way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_folders_are_made_and_nothing_else_lies_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.png"
    write_whole(path, b"picture")
    assert path.read_bytes() == b"picture"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, b"the former picture"])
def test_where_the_disk_is_full_what_was_there_stays_and_nothing_is_added(
    tmp_path: Path, before: bytes | None
) -> None:
    path = tmp_path / "x.png"
    if before is not None:
        path.write_bytes(before)
    with files_of_at_most(1000), pytest.raises(UsageError, match=r"x\.png cannot be written"):
        write_whole(path, bytes(5000))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        write_whole(tmp_path / "file" / "x.png", b"picture")
