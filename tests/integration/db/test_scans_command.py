"""`scans`, `requeue`, `assign` as terminals and pipes see them: ids are whole, and short ones are enough."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
from made_results import arrival, registered

from db.records import SpecimenIdentity
from db.registration import assign
from tests.support.terminal import command_line, on_terminal, piped

pytestmark = pytest.mark.services

HEARS_SIGINT = ("env", "--default-signal=INT")
"""A shell that runs the tests in the background has its children ignore it."""


@pytest.fixture
def environment(migrated, database_url):  # noqa: ARG001 - with its tables
    return {"LEUKOFLOW_DATABASE_URL": database_url}


def test_a_terminal_of_80_columns_shows_whole_ids(database, environment):
    scan_ids = registered(database, arrival("P-1"), arrival("P-2"))
    shown = on_terminal("scans", columns=80, environment=environment)
    for scan_id in scan_ids:
        assert str(scan_id) in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_pipe_gets_a_line_a_scan_with_whole_fields(database, environment):
    first, second = registered(database, arrival("P-1" * 20), arrival(None))
    lines = piped("scans", environment=environment).stdout.splitlines()
    heading, *rows = (line.split("\t") for line in lines)
    assert heading[:3] == ["scan", "patient", "specimen"]
    assert [row[0] for row in rows] == [str(first), str(second)]
    assert rows[0][1:3] == ["P-1" * 20, "S1"]
    assert rows[1][-1] == "the key has no folders"


def test_the_beginning_or_the_end_of_an_id_is_enough_where_it_is_the_only_one(database, environment):
    first, second = (str(scan_id) for scan_id in registered(database, arrival("P-1"), arrival("P-2")))
    listed = piped("scans", first[-8:], second[:-4].upper(), "--json", environment=environment)
    assert [json.loads(line)["scan"] for line in listed.stdout.splitlines()] == [first, second]
    done = piped("assign", first[-8:], "--patient", "P-3", environment=environment)
    assert done.stdout.startswith(f"{first} assigned")


@pytest.mark.parametrize(
    "command", [("scans",), ("requeue",), ("assign", "--patient", "P-1")], ids=lambda command: command[0]
)
def test_an_id_that_is_not_clear_is_one_line_and_exit_code_2(database, environment, command):
    first, _second = registered(database, arrival("P-1"), arrival("P-2"))
    # Ids begin with the time, so these two begin alike.
    unclear = (("ffffffff-dead", "no scan has"), ("P-4711", "hexadecimal"), (str(first)[:4], "more than one"))
    for scan, said in unclear:
        result = piped(*command, scan, environment=environment)
        assert (result.returncode, result.stdout) == (2, "")
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_following_into_a_pipe_writes_each_change_at_once(database, environment):
    (scan_id,) = registered(database, arrival("P-1"))
    with subprocess.Popen(
        [*HEARS_SIGINT, *command_line("scans", "--follow")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline().startswith("scan\tpatient")
        assert following.stdout.readline().split("\t")[:2] == [str(scan_id), "P-1"]
        with database.transaction() as connection:
            assign(connection, scan_id, SpecimenIdentity("P-2", "S-1"))
        assert following.stdout.readline().split("\t")[:2] == [str(scan_id), "P-2"]
        following.send_signal(signal.SIGINT)
        assert following.stdout.read() == ""
    assert following.returncode == 0
