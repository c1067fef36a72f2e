"""docs/formats.md names the keys that `analyse --json` prints, all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.acceptance.pictures import field_jpeg
from tests.support.pages import page


def keys_of(section: str) -> set[str]:
    """Return the keys in the first column of a section's table."""
    part = page("docs/formats.md").text.split(f" {section}\n")[1].split("\n#")[0]
    rows = [line for line in part.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict:
    scan = tmp_path_factory.mktemp("formats") / "field.jpg"
    scan.write_bytes(field_jpeg(0))
    printed = subprocess.run(
        [sys.executable, "-m", "worker", "analyse", str(scan), "--json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(printed)


def test_a_scan(document: dict):
    assert keys_of("JSON of a scan") == set(document)


def test_a_cell(document: dict):
    assert document["cells"]
    assert keys_of("A cell") == set(document["cells"][0])


def test_a_differential(document: dict):
    assert keys_of("A differential") == set(document["differential"])


def test_what_is_below_the_keys_is_named_too(document: dict):
    text = page("docs/formats.md").text
    below = [*document["quality"], *document["tiles"], *document["differential"]["classes"]["neutrophil"]]
    assert [key for key in below if f"`{key}`" not in text] == []


def test_provenance(document: dict):
    assert keys_of("Provenance") == set(document["provenance"])
