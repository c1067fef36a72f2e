"""Renews the lease of a claim from a thread of its own, for as long as its scan is analysed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from db.database import Database
from db.errors import LeaseLost
from db.ledger import heartbeat
from db.records import Claim, Progress
from pipeline.model.errors import TransientError


class Lease:
    """The lease of one claim, renewed every `heartbeat_s` seconds while `renewed` is open."""

    def __init__(self, database: Database, claim: Claim, heartbeat_s: float) -> None:
        self._database = database
        self._claim = claim
        self._heartbeat_s = heartbeat_s
        self._lost = threading.Event()
        self._done = threading.Event()

    def require(self) -> None:
        """Raises: LeaseLost, where a heartbeat found that the claim no longer holds."""
        if self._lost.is_set():
            raise LeaseLost(str(self._claim.scan_id))

    @contextmanager
    def renewed(self, progress: Callable[[], Progress]) -> Iterator[None]:
        """Return a context in which the lease is renewed; each heartbeat records the progress."""
        thread = threading.Thread(target=self._beat, args=(progress,), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _beat(self, progress: Callable[[], Progress]) -> None:
        while not self._done.wait(self._heartbeat_s):
            # While the database is unreachable, keep trying: the lease may outlast the outage.
            with suppress(TransientError), self._database.transaction() as connection:
                if not heartbeat(connection, self._claim, progress()):
                    self._lost.set()
                    return
