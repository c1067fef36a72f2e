"""`analyse` on a folder, as people and programs use it. No services."""

from __future__ import annotations

import csv
import io
import json
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.terminal import command_line, on_terminal, piped


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as `synth` leaves it: three fields, each with its truth."""
    folder = tmp_path_factory.mktemp("drawn")
    drawing = piped("synth", str(folder), "--fields", "--count", "3", "--seed", "21")
    assert drawing.returncode == 0, drawing.stderr
    assert len(list(folder.glob("*.truth.json"))) == 3
    return folder


@pytest.fixture(scope="module")
def patients(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two patients with files of the same names; one patient's field lies there twice."""
    folder = tmp_path_factory.mktemp("patients")
    one, two, three = sorted(drawn.glob("*.jpg"))
    for source, place in (
        (one, "P-1/a.jpg"),
        (two, "P-1/b.jpg"),
        (two, "P-1/again.jpg"),
        (three, "P-2/a.jpg"),
    ):
        (folder / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / place)
    return folder


@pytest.fixture(scope="module")
def counted(patients: Path) -> dict[str, int]:
    """Return the leukocytes of each file, by its path below the folder."""
    answer = piped("analyse", "--json", str(patients))
    documents = [json.loads(line) for line in answer.stdout.splitlines()]
    return {str(Path(d["path"]).relative_to(patients)): d["differential"]["n"] for d in documents}


def test_what_synth_wrote_can_be_analysed_by_its_folder(drawn: Path) -> None:
    answer = piped("analyse", str(drawn))
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == "leukoflow: 3 files that are no pictures were skipped\n"


def test_a_folder_gets_a_line_a_file_and_one_pooled_table_a_patient(
    patients: Path, counted: dict[str, int]
) -> None:
    answer = piped("analyse", str(patients))
    lines = answer.stdout.splitlines()
    assert answer.stderr == ""
    of_files = [line for line in lines if ".jpg: " in line]
    assert [line.partition(": ")[0] for line in of_files] == [
        str(patients / name) for name in sorted(counted)
    ]
    for line, name in zip(of_files, sorted(counted), strict=True):
        assert f", {counted[name]} leukocyte" in line
    assert sum(line.startswith("│ leukocytes ") for line in lines) == 2
    assert f"{patients / 'P-1'}: 2 of 3 scans pooled" in lines
    assert f"{patients / 'P-2'}: 1 of 1 scan pooled" in lines
    totals = [int(line.split("│")[2]) for line in lines if line.startswith("│ leukocytes ")]
    assert totals == [counted["P-1/a.jpg"] + counted["P-1/b.jpg"], counted["P-2/a.jpg"]]


def test_one_file_gets_its_table(patients: Path, counted: dict[str, int]) -> None:
    path = patients / "P-2" / "a.jpg"
    lines = piped("analyse", str(path)).stdout.splitlines()
    assert lines[0] == f"{path}: insufficient"
    assert sum(line.startswith("│ leukocytes ") for line in lines) == 1
    assert any(line.startswith(f"n = {counted['P-2/a.jpg']} leukocyte") for line in lines)


def test_csv_has_a_row_a_cell(patients: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    answer = piped("analyse", "--csv", str(patients / "P-1"), str(bad))
    assert answer.returncode == 2
    rows = list(csv.DictReader(io.StringIO(answer.stdout)))
    documents = [
        json.loads(line) for line in piped("analyse", "--json", str(patients / "P-1")).stdout.splitlines()
    ]
    expected = [
        (d["path"], number, *cell["centroid_px0"], cell["class"], cell["call"], cell["probability"])
        for d in documents
        for number, cell in enumerate(d["cells"], start=1)
    ]
    fields = ("path", "cell", "x_px0", "y_px0", "class", "status", "probability")
    assert expected
    assert [tuple(row[field] for field in fields) for row in rows] == [tuple(map(str, e)) for e in expected]
    assert str(bad) in answer.stderr


def test_pictures_of_files_of_one_name_keep_their_folders(patients: Path, tmp_path: Path) -> None:
    answer = piped(
        "analyse", str(patients), "--overlay", str(tmp_path / "o"), "--geojson", str(tmp_path / "g")
    )
    assert answer.returncode == 0, answer.stderr
    for folder, ending in (("o", ".png"), ("g", ".geojson.gz")):
        found = {str(file.relative_to(tmp_path / folder)) for file in (tmp_path / folder).rglob("*.*")}
        assert found == {
            f"{name}{ending}" for name in ("P-1/a.jpg", "P-1/again.jpg", "P-1/b.jpg", "P-2/a.jpg")
        }


@pytest.mark.parametrize("option", ["--overlay", "--geojson"])
def test_on_a_full_disk_there_is_one_line_and_nothing_half_written(
    patients: Path, tmp_path: Path, option: str
) -> None:
    # A program cannot tell a limit from a full disk: its write fails on the way.
    result = subprocess.run(
        command_line("analyse", str(patients), option, str(tmp_path / "out")),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),  # noqa: PLW1509
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    (said,) = result.stderr.splitlines()
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
    shown = on_terminal("analyse", "--json", str(patients), columns=80)
    assert [json.loads(line)["status"] for line in shown.splitlines()] == ["insufficient"] * 4
