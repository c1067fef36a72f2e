import psycopg
import pytest
from sqlalchemy import exc

from db.errors import translated
from pipeline.model.errors import TransientError


def wrapped(cause: BaseException) -> exc.DBAPIError:
    return exc.DBAPIError("SELECT secret", {"key": "secret"}, cause, hide_parameters=True)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (psycopg.errors.SerializationFailure("s"), "database_serialization"),
        (psycopg.errors.DeadlockDetected("s"), "database_deadlock"),
        (psycopg.errors.LockNotAvailable("s"), "database_lock_timeout"),
        (psycopg.errors.AdminShutdown("s"), "database_away"),
        (psycopg.errors.TooManyConnections("s"), "database_busy"),
        (psycopg.errors.DiskFull("s"), "database_full"),
        (psycopg.errors.ReadOnlySqlTransaction("s"), "database_read_only"),
        (psycopg.OperationalError("server closed the connection"), "database_away"),
        (psycopg.InterfaceError("the connection is closed"), "database_away"),
    ],
)
@pytest.mark.parametrize("as_raised", [wrapped, lambda cause: cause], ids=["through SQLAlchemy", "by COPY"])
def test_what_passes_is_transient(cause, code, as_raised):
    with pytest.raises(TransientError) as failed, translated():
        raise as_raised(cause)
    assert failed.value.code == code
    assert failed.value.__cause__ is not None
    assert "secret" not in str(failed.value)


def test_a_pool_without_a_free_connection_is_transient():
    with pytest.raises(TransientError) as failed, translated():
        raise exc.TimeoutError("QueuePool limit")
    assert failed.value.code == "database_pool_exhausted"


@pytest.mark.parametrize(
    "bug", [psycopg.errors.UndefinedTable("s"), psycopg.errors.CheckViolation("s"), ValueError("s")]
)
def test_a_bug_stays_a_bug(bug):
    with pytest.raises(type(bug)), translated():
        raise bug


def test_a_violated_constraint_stays_a_bug_through_sqlalchemy():
    with pytest.raises(exc.DBAPIError), translated():
        raise wrapped(psycopg.errors.UniqueViolation("s"))
