"""The shell scripts, and the secrets that one of them makes."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.deployed import DEPLOY, ROOT, run_tool
from worker.embedded.policies import POLICIES
from worker.embedded.principals import ROLE_OF, Principal
from worker.settings import Settings, load

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


def files(secrets: Path) -> list[Path]:
    return [path for path in secrets.rglob("*") if path.is_file()]


def contents(secrets: Path) -> dict[Path, bytes]:
    return {path.relative_to(secrets): path.read_bytes() for path in files(secrets)}


def test_others_cannot_reach_secrets_and_containers_can_read_them(secrets: Path):
    folders = {secrets, *(path.parent for path in files(secrets))}
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in files(secrets)} == {0o444}


def test_secrets_are_never_made_over(secrets: Path):
    before = contents(secrets)
    subprocess.run([DEPLOY / "make-secrets", secrets], check=True)
    assert contents(secrets) == before


def test_what_is_missing_is_made_and_told_to_the_server_and_the_rest_stays(tmp_path: Path):
    secrets = tmp_path / "secrets"
    subprocess.run([DEPLOY / "make-secrets", secrets], check=True)
    before = contents(secrets)
    lost = {Path("worker/s3_secret_key"), Path("worker/broker_password"), Path("worker/broker_url")}
    for name in lost:
        (secrets / name).unlink()
    subprocess.run([DEPLOY / "make-secrets", secrets], check=True)
    after = contents(secrets)
    changed = {name for name, value in after.items() if before[name] != value}
    assert changed == lost | {Path("s3.json"), Path("valkey.acl")}
    assert after[Path("worker/s3_secret_key")].strip() in after[Path("s3.json")]
    digest = hashlib.sha256(after[Path("worker/broker_password")].strip()).hexdigest()
    assert f"user worker on #{digest} " in after[Path("valkey.acl")].decode()


def test_a_folder_that_others_look_into_gets_no_secrets(tmp_path: Path):
    tmp_path.chmod(0o755)
    answer = subprocess.run([DEPLOY / "make-secrets", tmp_path], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr[:13]) == (2, "make-secrets:")
    assert list(tmp_path.iterdir()) == []


def test_no_secret_is_another(secrets: Path):
    words = [path.read_text().strip() for path in files(secrets)]
    made = [word for word in words if re.fullmatch(r"[0-9a-f]{40}", word)]
    assert len(set(made)) == len(made) == 1 + len(ROLE_OF) + 2 * len(Principal) + 3


def test_the_object_store_knows_each_with_its_keys_and_its_policy_and_nobody_else(secrets: Path):
    identities = json.loads((secrets / "s3.json").read_text())["identities"]
    assert {one["name"] for one in identities} == {*Principal}
    for one in identities:
        name = one["name"]
        keys = [(secrets / name / f"s3_{key}_key").read_text().strip() for key in ("access", "secret")]
        assert one == {
            "name": name,
            "credentials": [dict(zip(("accessKey", "secretKey"), keys, strict=True))],
            "policyNames": [name],
        }


def test_the_policies_are_those_of_the_embedded_object_store(secrets: Path):
    policies = json.loads((secrets / "s3.json").read_text())["policies"]
    made = {policy["name"]: json.loads(policy["content"]) for policy in policies}
    assert made == {
        principal.value: {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": list(allowed.actions),
                    "Resource": [f"arn:aws:s3:::{allowed.bucket}", f"arn:aws:s3:::{allowed.bucket}/*"],
                }
                for allowed in allowances
            ],
        }
        for principal, allowances in POLICIES.items()
    }


@pytest.mark.parametrize("name", ["watcher", "worker"])
def test_the_settings_take_them(secrets: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LEUKOFLOW_SECRETS_DIR", str(secrets / name))
    settings = load(Settings, s3_endpoint="seaweedfs:8333")
    password = (secrets / name / "database_password").read_text().strip()
    assert settings.database_url.get_secret_value() == (
        f"postgresql+psycopg://{name}:{password}@postgres/leukoflow"
    )
    password = (secrets / name / "broker_password").read_text().strip()
    assert settings.broker_url.get_secret_value() == f"redis://{name}:{password}@valkey:6379/0"


def test_only_the_migration_comes_to_the_database_as_its_owner(secrets: Path):
    password = (secrets / "postgres_password").read_text().strip()
    holding = {name.as_posix() for name, value in contents(secrets).items() if password.encode() in value}
    assert holding == {"postgres_password", "migrator/database_url"}
