"""What the README says is run, and what it lists is what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deployment import Deployment
from worker.cli.application import app
from worker.settings_table import settings_table

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_every_command_of_the_readme_runs(deployment: Deployment, tmp_path: Path):
    before = sum(deployment.counts().values())
    assert len(commands()) >= 8
    for command in commands():
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


def test_the_table_of_settings_is_that_of_the_code():
    assert settings_table() in README


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`leukoflow ([a-z]+)", README))))
def test_every_command_named_in_the_text_exists(command: str):
    names = {entry.name for entry in app.registered_commands} | {
        entry.name for entry in app.registered_groups
    }
    assert command in names


@pytest.mark.parametrize("target", ["help", "demo", "test", "check", "bench"])
def test_every_make_target_exists(target: str):
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(rf"^{target}\b", listed, re.MULTILINE)


def test_pictures_of_the_readme_exist():
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / name).is_file()
