"""A database that lets nobody in by this URL is a fault of the deployment, and named; it is not 'away'."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import text

from db import revision
from db.database import Database
from pipeline.model.errors import DeploymentError
from worker.exit_codes import EXIT_CONFIG

CREDENTIALS = (
    "database_credentials",
    "the database refused this user or its password; LEUKOFLOW_DATABASE_URL names both",
)
MISSING = (
    "database_missing",
    "the server has no database of this name; create it, or correct LEUKOFLOW_DATABASE_URL",
)


def _changed(url: str, user: str | None = None, password: str = "hidden", path: str | None = None) -> str:
    parts = urlsplit(url)
    login = f"{user or parts.username}:{password}" if password else str(parts.username)
    netloc = f"{login}@{parts.hostname}:{parts.port}" if path is None else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, path=path or parts.path))


@pytest.fixture(params=["password", "no password", "user", "database"])
def wrong(request: pytest.FixtureRequest, database_url: str) -> tuple[str, str, str]:
    """Return a URL that is wrong, and the code and the sentence for it."""
    if request.param == "password":
        return _changed(database_url), *CREDENTIALS
    if request.param == "no password":
        return _changed(database_url, password=""), *CREDENTIALS
    if request.param == "user":
        return _changed(database_url, user="nobody_here"), *CREDENTIALS
    return _changed(database_url, path="/no_such_database"), *MISSING


def test_who_is_not_let_in_is_told_so(wrong: tuple[str, str, str]) -> None:
    url, code, sentence = wrong
    with pytest.raises(DeploymentError) as failed:
        revision.current_revision(url)
    assert (failed.value.code, failed.value.sentence) == (code, sentence)
    with Database(url) as database, pytest.raises(DeploymentError) as failed, database.transaction() as asked:
        asked.execute(text("SELECT 1"))
    assert failed.value.code == code


def test_the_command_line_says_so_in_one_line_and_exits_with_78(database_url: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "worker", "status"],
        env=os.environ | {"LEUKOFLOW_DATABASE_URL": _changed(database_url)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (EXIT_CONFIG, "")
    assert answer.stderr == f"leukoflow: {CREDENTIALS[1]}\n"
