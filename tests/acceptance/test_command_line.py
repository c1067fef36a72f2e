"""The command line's contract: what it prints for programs, and what a mistake gets."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.capture import CaptureResult
from typer.testing import CliRunner

from db.states import ScanState
from pipeline.model.taxonomy import LEAVES
from pipeline.synth.truth import parse_truth
from tests.acceptance.pictures import field_jpeg
from tests.support.command_line import app
from tests.support.deployment import Deployment
from worker.cli import main
from worker.embedded import Principal
from worker.settings import variable_of

CELL_FIELDS = {
    "bbox_px0", "centroid_px0", "contour_px0", "nucleus_contours_px0", "area_um2", "nucleus_area_um2",
    "class", "probabilities", "disagreement", "call",
}  # fmt: skip
SCAN_FIELDS = {
    "path", "status", "reasons", "size_px", "mpp", "cells", "differential", "flags", "provenance",
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in deployment.environment.items():
        if name.startswith("LEUKOFLOW_"):
            monkeypatch.setenv(name, value)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def refused(monkeypatch, capsys) -> Callable[..., CaptureResult[str]]:
    """Return what runs `leukoflow` here, which ends with exit code 2, and gives what it printed."""

    def end(*arguments: str) -> CaptureResult[str]:
        monkeypatch.setattr(sys, "argv", ["leukoflow", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr()

    return end


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    run("synth", str(folder), "--fields", "--count", "2", "--seed", "8")
    return folder


@pytest.fixture
def scans(drawn, tmp_path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "scans"))


def test_synth_writes_scans_with_their_truth(scans):
    pictures = sorted(scans.glob("*.jpg"))
    assert len(pictures) == 2
    for picture in pictures:
        truth = parse_truth(picture.with_suffix(".truth.json").read_text())
        assert 1 <= len(truth.cells) <= 3


def test_synth_slides_carry_their_scale(tmp_path):
    run("synth", str(tmp_path), "--size", "600", "--leukocytes", "4", "--mpp", "0.25")
    (document,) = analysed(next(tmp_path.glob("*.tif")))
    assert document["mpp"] == 0.25
    assert document["size_px"] == [600, 600]


def analysed(*paths):
    output = run("analyse", "--json", *map(str, paths))
    return [json.loads(line) for line in output.splitlines()]


def test_analyse_prints_one_object_a_scan(scans):
    documents = analysed(*sorted(scans.glob("*.jpg")))
    assert len(documents) == 2
    for document in documents:
        assert document.keys() >= SCAN_FIELDS
        assert document["mpp"] is None
        assert document["mpp_assumed"] > 0
        assert document["cells"]
        for cell in document["cells"]:
            assert cell.keys() >= CELL_FIELDS
            assert set(cell["probabilities"]) == {leaf.value for leaf in LEAVES}
            assert sum(cell["probabilities"].values()) == pytest.approx(1, abs=1e-3)
            assert cell["call"] in ("accepted", "unidentified", "artefact")
        assert document["differential"]["n_found"] == len(document["cells"])
        assert len(document["provenance"]["scan_digest"]) == 64


def test_analyse_draws_and_writes_geojson(scans, tmp_path):
    path = next(scans.glob("*.jpg"))
    run("analyse", str(path), "--overlay", str(tmp_path / "o"), "--geojson", str(tmp_path / "g"))
    assert (tmp_path / "o" / f"{path.name}.png").stat().st_size > 10_000
    assert (tmp_path / "g" / f"{path.name}.geojson.gz").exists()


def test_a_file_that_cannot_be_read_is_said_and_exits_2(scans, tmp_path):
    bad = tmp_path / "text.png"
    bad.write_text("no picture")
    result = failed("analyse", "--json", str(bad), str(next(scans.glob("*.jpg"))))
    assert result.returncode == 2
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert (first["status"], first["error"], first["cells"]) == ("rejected", "not_an_image", [])
    assert second["cells"]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("analyse", "no/such/file.png"),
        ("results", "nobody-has-this-number"),
        ("assign", "00000000", "--patient", "P-1"),
        ("requeue", "ffffffff"),
        ("scans", "ffffffff"),
        ("analyse", "empty"),
        ("submit", "empty", "--patient", "P-1"),
        ("submit", "no-pictures", "--patient", "P-1"),
        ("submit", "no-pictures/notes.txt", "--patient", "a/b"),
        ("analyse", "no-pictures/notes.txt", "--json", "--csv"),
        ("submit", "no/such/file.png", "--patient", "P-1"),
        ("train", "no-such-recipe", "--data", "no/such/folder"),
        ("synth", "out", "--mpp", "40"),
        ("requeue", "not-hex"),
        ("results", "\udcff"),
        ("demo", "--scans", "no/such/folder", "--out", "demo"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(arguments, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-pictures").mkdir()
    (tmp_path / "no-pictures" / "notes.txt").write_text("a sidecar")
    said = refused(*arguments).err
    assert said.startswith("leukoflow: ")
    assert len(said.splitlines()) == 1


def test_a_missing_setting_is_named(monkeypatch):
    monkeypatch.delenv("LEUKOFLOW_DATABASE_URL")
    result = failed("scans")
    assert result.returncode == 2
    assert "LEUKOFLOW_DATABASE_URL" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_submitted_scans_become_results(deployment, scans):
    before = sum(deployment.counts().values())
    run("submit", str(scans), "--patient", "P-CLI", "--specimen", "S-1", "--stat")
    files = len(list(scans.glob("*.jpg")))  # and the truths beside them are no scans
    deployment.until_ended(before + files)

    lines = [json.loads(line) for line in run("scans", "--patient", "P-CLI", "--json").splitlines()]
    assert len(lines) == files
    assert {line["priority"] for line in lines} == {"stat"}
    document = json.loads(run("results", "P-CLI", "--format", "json"))
    assert document["n_slides"] == files
    with_cells = [slide for slide in document["slides"] if slide["state"] == "completed"]
    assert len(with_cells) == 2
    for slide in with_cells:
        assert all(cell.keys() >= CELL_FIELDS for cell in slide["cells"])
        assert slide["differential"]["n_found"] == len(slide["cells"])
    rows = list(csv.DictReader(io.StringIO(run("results", "P-CLI", "--format", "csv"))))
    assert {row["class"] for row in rows} >= {"neutrophil", "lymphocyte"}
    assert "neutrophil" in run("results", "P-CLI")


def slides_of_two_scans_of_one_name(deployment, scans, patient: str) -> int:
    """Return how many slides the patient has after both were submitted."""
    path = next(scans.glob("*.jpg"))
    before = sum(deployment.counts().values())
    run("submit", str(path), "--patient", patient)
    path.write_bytes(field_jpeg(77))
    run("submit", str(path), "--patient", patient)
    deployment.until_ended(before + 2)
    return len(deployment.results(patient).slides)


def test_submitting_never_overwrites(deployment, scans):
    assert slides_of_two_scans_of_one_name(deployment, scans, "P-TWICE") == 2


def test_a_scanners_keys_are_all_that_submitting_needs(deployment, scans, monkeypatch):
    for of_others in ("LEUKOFLOW_DATABASE_URL", "LEUKOFLOW_BROKER_URL"):
        monkeypatch.delenv(of_others)
    for name, key in deployment.servers.secrets_of(Principal.SCANNER).items():
        monkeypatch.setenv(variable_of(name), key)
    assert slides_of_two_scans_of_one_name(deployment, scans, "P-SCANNER") == 2


def test_a_nameless_scan_is_assigned_by_a_person(deployment):
    before = sum(deployment.counts().values())
    deployment.drop("nameless.jpg", field_jpeg(55))
    deployment.until_ended(before + 1)
    (line,) = [
        json.loads(row)
        for row in run("scans", "--state", "unassigned", "--json").splitlines()
        if json.loads(row)["slide"] == "nameless.jpg"
    ]
    assert line["reason"]
    run("assign", line["scan"], "--patient", "P-FOUND", "--specimen", "S-1")
    deployment.until_ended(before + 1)
    assert deployment.results("P-FOUND").slides[0].state is ScanState.COMPLETED


def test_quarantined_scans_are_listed_and_tried_again(deployment):
    before = sum(deployment.counts().values())
    deployment.drop("P-Q/S-1/broken.png", b"\x89PNG\r\n\x1a\nno")
    deployment.until_ended(before + 1)
    lines = [json.loads(line) for line in run("quarantine", "list", "--json").splitlines()]
    (line,) = [line for line in lines if line["patient"] == "P-Q"]
    assert line["reason"]
    run("requeue", line["scan"][:18])
    deployment.until_ended(before + 1)
    assert deployment.results("P-Q").slides[0].state is ScanState.QUARANTINED


def test_models_are_listed_and_verified():
    assert "segmenter" in run("models", "list")
    assert "is whole" in run("models", "verify")


def test_the_schema_is_upgraded_twice():
    assert run("db", "upgrade") == run("db", "upgrade")


def test_names_in_brackets_are_printed_as_they_are(deployment, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    before = sum(deployment.counts().values())
    deployment.drop("x[/b].jpg", field_jpeg(56))
    deployment.drop("P-B/S-1/blood[left].jpg", field_jpeg(57))
    deployment.until_ended(before + 2)
    assert "x[/b].jpg" in run("scans", "--state", "unassigned")
    assert "blood[left]" in run("results", "P-B")


def test_requeueing_is_all_or_nothing(refused):
    (line,) = [json.loads(row) for row in run("scans", "--patient", "P-B", "--json").splitlines()]
    nameless = next(json.loads(row) for row in run("scans", "--state", "unassigned", "--json").splitlines())
    assert refused("requeue", line["scan"], nameless["scan"]).out == ""
    assert json.loads(run("scans", "--patient", "P-B", "--json"))["state"] == "completed"


def test_an_identifier_is_one_however_it_is_composed(deployment):
    before = sum(deployment.counts().values())
    deployment.drop("M\u00fcller/S-1/a.jpg", field_jpeg(58))
    deployment.until_ended(before + 1)
    assert json.loads(run("results", "Mu\u0308ller", "--format", "json"))["n_slides"] == 1
    assert run("scans", "--patient", "Mu\u0308ller", "--json")


def test_the_demo_empties_no_folder_of_somebody_else(tmp_path, refused):
    scans = tmp_path / "mine"
    scans.mkdir()
    (scans / "thesis.txt").write_text("years of work")
    for arguments in (["--out", str(scans)], ["--scans", str(scans), "--out", str(tmp_path)]):
        refused("demo", *arguments)
    assert (scans / "thesis.txt").read_text() == "years of work"
