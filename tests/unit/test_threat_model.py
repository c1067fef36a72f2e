"""The threat model names tests that exist, for every threat, and leaves no letter of STRIDE out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
THREATS = TEXT.split("## Threat model\n")[1]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def threats() -> list[list[str]]:
    """Return the cells of each line of the table."""
    lines = [line for line in THREATS.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_threat_names_its_test_and_its_letters() -> None:
    assert len(threats()) >= 20
    for _, letters, threat, answer, shown_by in threats():
        assert re.fullmatch(r"[STRIDE](, [STRIDE])*", letters), threat
        assert answer
        assert "::test_" in shown_by, threat
    assert {letter for line in threats() for letter in line[1].split(", ")} == set("STRIDE")


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    defined = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    assert name in {node.name for node in defined if isinstance(node, ast.FunctionDef)}


def test_everything_that_looks_like_a_test_was_read() -> None:
    assert len(NAMED) == TEXT.count("::test_") > 25


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_every_locked_library_has_its_hashes(lock: str) -> None:
    libraries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)[
        1:
    ]
    assert libraries
    for library in libraries:
        assert re.match(r"[\w.\[\],-]+==\S+", library), library
        assert "--hash=sha256:" in library, library
