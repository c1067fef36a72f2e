"""The Alembic environment. `db.schema` passes the connection in the attributes of the Config."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from db.tables import Base


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


_connection = context.config.attributes["connection"]
if not isinstance(_connection, Connection):
    raise TypeError("migrations run through db.schema.upgrade, which passes its connection")
_migrate(_connection)
