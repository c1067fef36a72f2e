"""What the README and the other pages say is run, and what they name is what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support.command_line import app
from tests.support.deployment import Deployment
from tests.support.pages import ROOT, Page, anchors, page, pages
from worker.settings_table import settings_table

RUN_ELSEWHERE = {"docs/restore.md": ROOT / "tests" / "integration" / "test_restore.py"}
"""Pages whose blocks another test runs."""

RUNNABLE = [page for page in pages() if page.blocks("sh") and page.name not in RUN_ELSEWHERE]
PROGRAM = typer.main.get_command(app)


def commands(page: Page) -> list[str]:
    return [line for block in page.blocks("sh") for line in block.splitlines() if line.strip()]


def named(page: Page) -> str:
    return page.name


@pytest.mark.parametrize("page", RUNNABLE, ids=named)
def test_every_command_of_a_page_runs(page: Page, deployment: Deployment, tmp_path: Path):
    before = sum(deployment.counts().values())
    for command in commands(page):
        name, *arguments = shlex.split(command)
        assert name == "leukoflow"
        result = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=tmp_path,
            env={**deployment.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        if arguments[0] == "submit":
            before += 1
            deployment.until_ended(before)


def test_enough_is_run():
    assert sum(len(commands(page)) for page in RUNNABLE if page.name == "README.md") >= 8
    assert len(RUNNABLE) >= 3
    assert all(path.is_file() for path in RUN_ELSEWHERE.values())


def test_the_table_of_settings_is_that_of_the_code():
    assert settings_table() in page("docs/configuration.md").text


@pytest.mark.parametrize("page", [page for page in pages() if page.commands()], ids=named)
def test_every_command_and_option_that_is_named_exists(page: Page):
    for line in page.commands():
        found, words = PROGRAM, line.replace(",", " ").split()[1:]
        while words and words[0] in getattr(found, "commands", {}):
            found, words = found.commands[words[0]], words[1:]
        assert not (hasattr(found, "commands") and words), line
        options = {name for parameter in found.params for name in parameter.opts} | {"--help"}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= options, line


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_make_target_that_is_named_exists(page: Page):
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = set(re.findall(r"^([a-z-]+)\b", listed, re.MULTILINE))
    assert set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", page.text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_link_and_picture_leads_somewhere(page: Page):
    for link in page.links():
        file, _, anchor = link.partition("#")
        target = (page.path.parent / file).resolve() if file else page.path
        assert target.exists(), link
        assert not anchor or anchor in anchors(Page(target.relative_to(ROOT).as_posix())), link


@pytest.mark.parametrize("page", [page for page in pages() if page.name != "CHANGELOG.md"], ids=named)
def test_every_file_that_is_named_exists(page: Page):
    inside = r"(?:docs|tests|pipeline|worker|db|deploy)/[\w./-]+"
    for span in page.spans():
        if found := re.fullmatch(rf"({inside})(?:::\w+)?", span):
            assert (ROOT / found[1]).exists(), span


def test_every_page_that_code_names_exists():
    folders = ("pipeline", "worker", "db", "deploy", "tests")
    kinds = {".py", ".toml", ".yaml", ".md"}
    texts = [p.read_text("utf-8") for f in folders for p in (ROOT / f).rglob("*") if p.suffix in kinds]
    names = {name for text in texts for name in re.findall(r"\bdocs/[a-z][\w/-]*\.md", text)}
    assert len(names) >= 8
    assert sorted(name for name in names if not (ROOT / name).is_file()) == []


@pytest.mark.parametrize(("name", "most"), [("README.md", 140), ("docs/glossary.md", 40)])
def test_short_pages_stay_short(name: str, most: int):
    assert len(page(name).text.splitlines()) <= most


def test_the_picture_is_small_and_says_whose_it_is():
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)\n\n\*([^*]+)\*", page("README.md").text)
    assert (ROOT / picture[0]).stat().st_size <= 200_000
    assert "MIT licence" in picture[1]
    licence = (ROOT / "docs" / "images" / "field-licence.txt").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 shenggan" in licence
