"""Analysing again: behind all other work, a few at a time, and the former runs stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from made_results import arrival, cells, claimed, registered, result
from sqlalchemy import text
from typer.testing import CliRunner, Result

from db import ledger, reads, reanalysis, registration, results
from db.reanalysis import ReanalysisFilter
from db.states import Priority
from pipeline.model.errors import UsageError
from tests.support.command_line import app

pytestmark = pytest.mark.services

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def completed(database, *uploads, bundle="bundle"):
    """Return scans with a result each."""
    scan_ids = registered(database, *uploads)
    for scan_id in scan_ids:
        complete(database, claimed(database, scan_id), bundle)
    return scan_ids


def complete(database, claim, bundle="bundle"):
    with database.transaction() as connection:
        found = result(cells(lymphocyte=2), str(claim.scan_id), bundle=bundle)
        return results.save_result(connection, claim, found, ())


def reanalysed(database, since=LONG_AGO, **more):
    with database.transaction() as connection:
        wanted = ReanalysisFilter(since, reanalysis.database_time(connection), **more)
        counted = reanalysis.count_reanalysable(connection, wanted)
    with database.transaction() as connection:
        asked = reanalysis.reanalyse(connection, wanted)
    assert len(asked) == counted
    return asked


def due(database, resend_after_s=3600.0):
    with database.transaction() as connection:
        return ledger.due_for_enqueue(connection, resend_after_s=resend_after_s)


def queue(database, scans):
    with database.transaction() as connection:
        ledger.mark_queued(connection, [scan.scan_id for scan in scans])


def test_former_runs_stay_and_the_new_one_becomes_the_result(database, rows):
    (scan_id,) = completed(database, arrival("P-1"))
    assert reanalysed(database) == [scan_id]
    with database.transaction() as connection:
        (slide,) = reads.results_of_patient(connection, "P-1").slides
        # Until the new result is there the former one is the answer.
        assert slide.run.provenance.bundle_name == "made by hand"
    queue(database, due(database))
    with database.transaction() as connection:
        claim = ledger.claim(connection, scan_id, worker="w", lease_s=60)
    saved = complete(database, claim, "a new bundle")
    assert saved.is_new
    assert rows("SELECT count(*), count(DISTINCT bundle_digest) FROM run") == [(2, 2)]
    assert rows("SELECT current_run_id, state FROM scan") == [(saved.run_id, "completed")]
    assert rows("SELECT count(*) FROM cell") == [(4,)]


def test_it_is_on_record_and_a_stat_scan_is_none_any_more(database, rows):
    (scan_id,) = completed(database, arrival(priority=Priority.STAT))
    reanalysed(database)
    assert rows("SELECT detail FROM event WHERE kind = 'reanalysed' AND scan_id = :s", s=scan_id) == [
        ({"priority": "stat"},)
    ]
    assert [scan.priority for scan in due(database)] == [Priority.ROUTINE]


def test_only_what_arrived_since_and_is_done(database):
    old, young = completed(database, arrival(), arrival())
    registered(database, arrival(), arrival(None))
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE scan SET received_at = now() - interval '40 days' WHERE id = :s"), {"s": old}
        )
    assert reanalysed(database, datetime.now(UTC) - timedelta(days=7)) == [young]
    assert reanalysed(database) == [old]
    assert reanalysed(database) == []


def test_what_a_bundle_has_seen_already_is_left_out(database, rows):
    by_old, by_new = (
        *completed(database, arrival(), bundle="old"),
        *completed(database, arrival(), bundle="new"),
    )
    ((digest,),) = rows(
        "SELECT bundle_digest FROM run JOIN scan ON scan.current_run_id = run.id WHERE scan.id = :s", s=by_new
    )
    assert reanalysed(database, except_bundle=digest[:12]) == [by_old]


def test_what_comes_out_anew_is_not_sent_round_again(database):
    (scan_id,) = completed(database, arrival())
    with database.transaction() as connection:
        wanted = ReanalysisFilter(LONG_AGO, reanalysis.database_time(connection))
    with database.transaction() as connection:
        assert reanalysis.reanalyse(connection, wanted) == [scan_id]
    queue(database, due(database))
    with database.transaction() as connection:
        claim = ledger.claim(connection, scan_id, worker="w", lease_s=60)
    complete(database, claim)
    with database.transaction() as connection:
        assert reanalysis.reanalyse(connection, wanted) == []


def test_the_background_waits_for_all_others(database):
    completed(database, arrival(), arrival())
    background = reanalysed(database)
    (routine,) = registered(database, arrival())
    first = due(database)
    assert [scan.scan_id for scan in first] == [routine]
    queue(database, first)
    assert due(database) == []
    with database.transaction() as connection:
        claim = ledger.claim(connection, routine, worker="w", lease_s=60)
    # It runs: nothing else waits any more.
    assert [scan.scan_id for scan in due(database)] == background
    complete(database, claim)


def test_the_background_comes_a_few_at_a_time_and_lost_messages_are_sent_again(database, monkeypatch):
    monkeypatch.setattr(ledger, "BACKGROUND_QUEUED", 2)
    completed(database, *(arrival() for _ in range(5)))
    reanalysed(database)
    first = due(database)
    assert len(first) == 2
    queue(database, first)
    assert due(database) == []
    assert {scan.scan_id for scan in due(database, 0.0)} == {scan.scan_id for scan in first}
    with database.transaction() as connection:
        ledger.claim(connection, first[0].scan_id, worker="w", lease_s=60)
    assert len(due(database)) == 1


def test_a_persons_request_brings_a_scan_out_of_the_background(database):
    first, second = completed(database, arrival(), arrival())
    reanalysed(database)
    queue(database, due(database))
    with database.transaction() as connection:
        claim = ledger.claim(connection, second, worker="w", lease_s=60)
    complete(database, claim)
    with database.transaction() as connection:
        registration.requeue(connection, second)
    assert [scan.scan_id for scan in due(database)] == [second]
    assert first != second


def called(database_url, *arguments: str) -> Result:
    environment = {"LEUKOFLOW_DATABASE_URL": database_url}
    return CliRunner().invoke(app, ["reanalyse", *arguments], env=environment)


def test_the_command_says_how_many_and_does_it_once(database, database_url, rows):
    completed(database, *(arrival() for _ in range(3)))

    def said(*arguments: str) -> str:
        result = called(database_url, *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert said("--since", "2020-01-01", "--dry-run").startswith("3 scans would be")
    assert rows("SELECT count(*) FROM scan WHERE background") == [(0,)]
    assert said("--since", "2020-01-01").startswith("3 scans will be")
    assert rows("SELECT count(*) FROM scan WHERE background AND state = 'received'") == [(3,)]
    assert said("--since", "2020-01-01T00:00:00").startswith("0 scans")
    assert said("--since", "2999-01-01", "--dry-run").startswith("0 scans")


def test_the_command_leaves_out_what_the_named_bundle_has_seen(database, database_url, rows):
    completed(database, arrival(), bundle="old")
    completed(database, arrival(), bundle="new")
    digests = [digest for (digest,) in rows("SELECT digest FROM model_bundle ORDER BY digest")]
    assert len(digests) == 2
    result = called(database_url, "--since", "2020-01-01", "--except-bundle", digests[0][:12], "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "1 scan would be analysed again\n")


@pytest.mark.parametrize("unknown", ["abcdef0123456789", "", "%"])
def test_a_bundle_that_the_ledger_does_not_know_is_an_error_that_names_those_it_knows(
    database, database_url, rows, unknown
):
    completed(database, arrival(), bundle="old")
    completed(database, arrival(), bundle="new")
    result = called(database_url, "--since", "2020-01-01", "--except-bundle", unknown)
    assert isinstance(result.exception, UsageError)
    for (digest,) in rows("SELECT digest FROM model_bundle"):
        assert digest[:16] in result.exception.sentence
    assert rows("SELECT count(*) FROM scan WHERE background") == [(0,)]
