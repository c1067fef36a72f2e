"""Records the author of every event, and lets read-only roles record that results were read.

The release before writes events as before; their author is recorded too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: None = None
depends_on: None = None

# SECURITY DEFINER: runs with the privileges of its owner. Its body is bound to this table when it is created,
# so the search path of a caller has no effect; arguments of a caller are limited in length.
_RECORD_READ = """
CREATE FUNCTION record_results_read(patient_id uuid, reader text, purpose text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO event (kind, detail) VALUES (
        'results_read',
        jsonb_build_object(
            'patient_id', patient_id, 'reader', left(reader, 200), 'purpose', left(purpose, 200)
        )
    );
END
"""
_TRIGGERS = ("event_append_only", "event_no_truncate")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # The author of earlier events is unknown, so the default is set after the column is added.
    op.add_column("event", sa.Column("db_user", sa.Text(), nullable=True))
    op.alter_column("event", "db_user", server_default=sa.text("SESSION_USER"))
    for trigger in _TRIGGERS:
        # Fires in replica sessions too, in which other triggers are disabled.
        op.execute(f"ALTER TABLE event ENABLE ALWAYS TRIGGER {trigger}")
    op.execute(_RECORD_READ)
    op.execute("REVOKE ALL ON FUNCTION record_results_read FROM PUBLIC")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION record_results_read")
    for trigger in _TRIGGERS:
        op.execute(f"ALTER TABLE event ENABLE TRIGGER {trigger}")
    op.drop_column("event", "db_user")
