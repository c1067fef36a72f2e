"""Which files of a folder are scans, under which patient's folder, and what a person's mistakes get."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.model.errors import UsageError
from worker.cli.scan_files import asked_files

NOBODY = 65534


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_folders_are_walked_and_what_is_no_picture_is_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(
        tmp_path,
        *("b.jpg", "a.tif", "P-1/S-1/c.PNG", "P-1/without-ending"),
        *("Thumbs.db", "desktop.ini", "a.truth.json", "LABELS.CSV", "notes.txt", "x.geojson.gz"),
        *(".DS_Store", ".cache/d.jpg"),
    )
    found = asked_files([folder])
    assert [str(file.path.relative_to(folder)) for file in found] == [
        "P-1/S-1/c.PNG", "P-1/without-ending", "a.tif", "b.jpg",
    ]  # fmt: skip
    assert capsys.readouterr().err == "leukoflow: 8 files that are no pictures were skipped\n"


def test_one_skipped_file_is_said_in_the_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked_files([made(tmp_path, "a.jpg", "a.json")])
    assert capsys.readouterr().err == "leukoflow: 1 file that is no picture was skipped\n"


def test_a_file_that_is_named_is_always_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "a.json", ".hidden")
    paths = [tmp_path / "a.json", tmp_path / ".hidden"]
    assert [file.path for file in asked_files(paths)] == paths
    assert capsys.readouterr().err == ""


def test_what_is_named_twice_is_taken_once(tmp_path: Path) -> None:
    folder = made(tmp_path, "a.jpg", "b.jpg", "P-1/c.jpg")
    found = asked_files([folder / "b.jpg", folder, folder / "P-1" / ".." / "a.jpg"])
    assert [file.path.name for file in found] == ["b.jpg", "c.jpg", "a.jpg"]


def test_each_folder_within_the_given_one_is_a_patients(tmp_path: Path) -> None:
    folder = made(tmp_path, "P-1/S-1/a.jpg", "P-1/S-2/a.jpg", "P-2/a.jpg", "loose.jpg")
    patients = [file.patient_folder for file in asked_files([folder])]
    assert patients == [folder / "P-1", folder / "P-1", folder / "P-2", folder]
    (named,) = asked_files([folder / "P-1" / "S-1" / "a.jpg"])
    assert named.patient_folder == folder / "P-1" / "S-1"


def test_places_are_told_apart_however_the_files_were_given(tmp_path: Path) -> None:
    folder = made(tmp_path, "P-1/a.jpg", "P-2/a.jpg")
    one, other = folder / "P-1", folder / "P-2"
    for paths in ([folder], [one, other], [one / "a.jpg", other], [one / "a.jpg", other / "a.jpg"]):
        assert [str(file.place) for file in asked_files(paths)] == ["P-1/a.jpg", "P-2/a.jpg"]
    assert [str(file.place) for file in asked_files([one / "a.jpg"])] == ["a.jpg"]


@pytest.mark.parametrize("names", [(), ("a.json", ".hidden")])
def test_a_folder_without_a_scan_is_a_mistake(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = made(tmp_path / "scans", *names)
    folder.mkdir(exist_ok=True)
    with pytest.raises(UsageError, match="no scan in the folder"):
        asked_files([made(tmp_path / "good", "a.jpg"), folder])


def test_a_path_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        asked_files([tmp_path / "missing"])


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user without rights; root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", [".", "P-1"])
def test_a_folder_that_cannot_be_read_is_a_mistake(tmp_path: Path, closed: str) -> None:
    folder = made(tmp_path / "scans", "P-1/a.jpg", "b.jpg")
    outer = [tmp_path, *tmp_path.parents]
    modes = {path: path.stat().st_mode for path in outer if path.owner() == tmp_path.owner()}
    opened = {path: mode for path, mode in modes.items() if not mode & 0o005}
    for path, mode in opened.items():
        path.chmod(mode | 0o055)
    (folder / closed).chmod(0)
    try:
        with as_nobody(), pytest.raises(UsageError, match=r"cannot be read: Permission denied"):
            asked_files([folder])
    finally:
        (folder / closed).chmod(0o755)
        for path, mode in opened.items():
            path.chmod(mode)
