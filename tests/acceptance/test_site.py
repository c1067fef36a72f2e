"""`make docs`: every page is in it, no link is broken, and reading it asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT, pages

NOT_A_PAGE = {"README.md", "CHANGELOG.md", "deploy/README.md"}
"""The first two are pages of other names, the last is for who looks into deploy/."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return target


def test_every_page_is_there(site: Path):
    for page in pages():
        if page.name not in NOT_A_PAGE:
            name = re.sub(r"README\.md$", "index.md", page.name.removeprefix("docs/"))
            assert (site / name).with_suffix(".html").is_file(), name
    assert (site / "index.html").is_file()
    assert (site / "changelog.html").is_file()


def test_commands_and_modules_have_their_reference(site: Path):
    assert "leukoflow analyse" in (site / "commands.html").read_text(encoding="utf-8")
    reference = (site / "reference" / "pipeline.run.html").read_text(encoding="utf-8")
    assert "analyse_slide" in reference
    assert "Return the analysis of one open scan" in reference


def test_no_page_loads_anything_from_elsewhere(site: Path):
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="([^"]+)"', path.read_text("utf-8")
        )
        assert [target for target in loaded if re.match(r"(https?:)?//", target)] == [], path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", path.read_text("utf-8")), path.name
