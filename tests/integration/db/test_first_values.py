"""Two threads with the process's first UUID at once: psycopg moves what it knows of a type at its first use.

A thread that looks in between finds it in neither place, and its statement fails (3.3.9, `get_dumper`).
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.services

LEFT_TO_MOVE = """
import sys
from datetime import date, datetime, timedelta
from uuid import UUID

from db.database import Database

with Database(sys.argv[1]) as database, database.transaction() as connection:
    known = connection.connection.driver_connection.adapters._dumpers
    for kinds in known.values():
        for kind in (UUID, datetime, date, timedelta):
            if kind not in kinds:
                print(kind.__name__)
"""


def test_a_database_knows_the_types_of_its_values_before_any_thread_asks(database_url):
    ran = subprocess.run(
        [sys.executable, "-c", LEFT_TO_MOVE, database_url], check=True, capture_output=True, text=True
    )
    assert ran.stdout == ""
