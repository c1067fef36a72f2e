"""The shell scripts, and the secrets that one of them makes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.deployed import DEPLOY, ROOT, run_tool
from worker.settings import load_settings

SCRIPTS = sorted(
    path
    for folder in (ROOT / ".ci", DEPLOY)
    for path in folder.rglob("*")
    if path.is_file() and re.match(rb"#!.*\b(ba)?sh\b", path.read_bytes()[:40])
)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("box") / "secrets"
    subprocess.run([DEPLOY / "make-secrets", folder], check=True)
    return folder


def test_there_are_scripts():
    assert {path.relative_to(ROOT).as_posix() for path in SCRIPTS} >= {".ci/run", "deploy/make-secrets"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path):
    answer = run_tool("shellcheck", str(path))
    assert (answer.returncode, answer.stdout) == (0, "")


def test_shellcheck_would_find_something():
    assert run_tool("shellcheck", "-", given="#!/bin/sh\nrm $1\n").returncode != 0


def test_others_cannot_reach_secrets_and_containers_can_read_them(secrets: Path):
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o444}


def test_secrets_are_never_made_over(secrets: Path):
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    again = subprocess.run([DEPLOY / "make-secrets", secrets], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr.splitlines()[-1][:13]) == (2, "make-secrets:")
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before


def test_no_secret_is_another(secrets: Path):
    made = re.findall(r"[0-9a-f]{40}", "".join(path.read_text() for path in secrets.iterdir()))
    assert len(set(made)) == 10


def test_the_settings_take_them(secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("database_url", "broker_url"):
        (tmp_path / name).write_text((secrets / name).read_text())
    for name in ("s3_access_key", "s3_secret_key"):
        (tmp_path / name).write_text((secrets / f"worker_{name}").read_text())
    monkeypatch.setenv("LEUKOFLOW_SECRETS_DIR", str(tmp_path))
    settings = load_settings(s3_endpoint="seaweedfs:8333")
    identities = json.loads((secrets / "s3.json").read_text())["identities"]
    (worker,) = [one for one in identities if one["name"] == "worker"]
    assert worker["credentials"] == [
        {
            "accessKey": settings.s3_access_key.get_secret_value(),
            "secretKey": settings.s3_secret_key.get_secret_value(),
        }
    ]
    password = (secrets / "postgres_password").read_text().strip()
    assert f":{password}@postgres/" in settings.database_url.get_secret_value()
    assert (secrets / "valkey.conf").read_text().strip() == (
        f"requirepass {settings.broker_url.get_secret_value().split('@')[0].removeprefix('redis://:')}"
    )
