"""`analyse` on a folder, as people and programs use it. No services."""

from __future__ import annotations

import csv
import io
import json
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import command_line, on_terminal, piped

NAMES = ("P-1/a.jpg", "P-1/again.jpg", "P-1/b.jpg", "P-2/a.jpg")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of two patients, as `synth` drew their fields; one of them lies there twice."""
    drawn, folder = tmp_path_factory.mktemp("drawn"), tmp_path_factory.mktemp("patients")
    drawing = piped("synth", str(drawn), "--fields", "--count", "3", "--seed", "21")
    assert drawing.returncode == 0, drawing.stderr
    one, two, three = sorted(drawn.glob("*.jpg"))
    for source, name in zip((one, two, two, three), NAMES, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / name)
        shutil.copyfile(source.with_suffix(".truth.json"), (folder / name).with_suffix(".truth.json"))
    return folder


@pytest.fixture(scope="module")
def documents(patients: Path) -> list[dict[str, Any]]:
    """Return what `--json` says of the folder's files."""
    return [json.loads(line) for line in piped("analyse", "--json", str(patients)).stdout.splitlines()]


@pytest.fixture(scope="module")
def counted(documents: list[dict[str, Any]]) -> dict[str, int]:
    """Return the leukocytes of each file."""
    return dict(zip(NAMES, (document["differential"]["n"] for document in documents), strict=True))


def test_a_folder_gets_a_line_a_file_and_a_pooled_table_and_pictures_in_the_same_folders(
    patients: Path, counted: dict[str, int], tmp_path: Path
) -> None:
    places = ("--overlay", str(tmp_path / "o"), "--geojson", str(tmp_path / "g"))
    answer = piped("analyse", str(patients), *places)
    assert answer.returncode == 0
    assert answer.stderr == "leukoflow: 4 files that are no pictures were skipped\n"
    lines = answer.stdout.splitlines()
    of_files = [line for line in lines if ".jpg: " in line]
    assert [line.partition(": ")[0] for line in of_files] == [str(patients / name) for name in NAMES]
    for line, name in zip(of_files, NAMES, strict=True):
        assert f", {counted[name]} leukocyte" in line
    assert f"{patients / 'P-1'}: 2 of 3 scans pooled" in lines
    assert f"{patients / 'P-2'}: 1 of 1 scan pooled" in lines
    totals = [int(line.split("│")[2]) for line in lines if line.startswith("│ leukocytes ")]
    assert totals == [counted["P-1/a.jpg"] + counted["P-1/b.jpg"], counted["P-2/a.jpg"]]
    for folder, ending in (("o", ".png"), ("g", ".geojson.gz")):
        found = {str(file.relative_to(tmp_path / folder)) for file in (tmp_path / folder).rglob("*.*")}
        assert found == {f"{name}{ending}" for name in NAMES}


def test_one_file_gets_its_table(patients: Path, counted: dict[str, int]) -> None:
    path = patients / "P-2" / "a.jpg"
    lines = piped("analyse", str(path)).stdout.splitlines()
    assert lines[0] == f"{path}: insufficient"
    assert sum(line.startswith("│ leukocytes ") for line in lines) == 1
    assert any(line.startswith(f"n = {counted['P-2/a.jpg']} leukocyte") for line in lines)


def test_csv_has_a_row_a_cell(patients: Path, documents: list[dict[str, Any]], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    answer = piped("analyse", "--csv", str(patients), str(bad))
    assert answer.returncode == 2
    assert str(bad) in answer.stderr
    expected = [
        (d["path"], number, *cell["centroid_px0"], cell["class"], cell["call"], cell["probability"])
        for d in documents
        for number, cell in enumerate(d["cells"], start=1)
    ]
    fields = ("path", "cell", "x_px0", "y_px0", "class", "status", "probability")
    rows = csv.DictReader(io.StringIO(answer.stdout))
    assert [tuple(row[field] for field in fields) for row in rows] == [tuple(map(str, e)) for e in expected]


def test_on_a_full_disk_there_is_one_line_and_nothing_half_written(patients: Path, tmp_path: Path) -> None:
    # A program cannot tell a limit from a full disk: its write fails on the way.
    result = subprocess.run(
        command_line("analyse", str(patients / "P-1"), "--overlay", str(tmp_path / "out")),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    _skipped, said = result.stderr.splitlines()
    assert said.startswith("leukoflow: ")
    assert "cannot be written" in said
    assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == []


def test_a_terminal_sees_how_far_it_is_and_keeps_every_line(patients: Path, counted: dict[str, int]) -> None:
    shown = on_terminal("analyse", str(patients), columns=80)
    assert "4/4" in shown
    for name in counted:
        assert Path(name).name in shown
    assert shown.count("leukocytes  ") == 2


def test_a_terminal_gets_data_untorn(patients: Path) -> None:
    paths = [str(patients / name) for name in NAMES[:2]]
    shown = on_terminal("analyse", "--json", *paths, columns=80)
    assert [json.loads(line)["path"] for line in shown.splitlines()] == paths
