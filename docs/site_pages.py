"""Pages of the site that are made from README, changelog, the command line's help and docstrings."""

from __future__ import annotations

from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click
from typer.core import TyperCommand, TyperGroup

from worker.cli.application import application

ROOT = Path(__file__).resolve().parents[1]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Return the configuration with a page for each module of `extra.reference` in the navigation."""
    for section in config.nav or []:
        for title, pages in section.items():
            if title == "Reference":
                pages.extend({module: f"reference/{module}.md"} for module in config.extra["reference"])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the files with those that are made here."""
    pages = {
        "index.md": _readme(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "commands.md": _commands(),
    }
    pages |= {f"reference/{module}.md": f"::: {module}\n" for module in config.extra["reference"]}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def _readme() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](CHANGELOG.md", "](changelog.md")


def _commands() -> str:
    command = typer.main.get_command(application())
    _unabridged(command)
    context = typer.Context(command, info_name="leukoflow")
    return get_docs_for_click(obj=command, ctx=context, name="leukoflow", title="Commands")


def _unabridged(command: TyperCommand | TyperGroup) -> None:
    """Let lists of commands show the whole first line of each, which typer cuts at 45 characters."""
    command.short_help = (command.help or "").partition("\n")[0]
    for below in getattr(command, "commands", {}).values():
        _unabridged(below)
