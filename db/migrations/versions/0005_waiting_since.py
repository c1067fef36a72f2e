"""Adds the time since when a scan waits, and indexes for waiting scans and recent attempts.

`received_at` is the time of the upload; a scan that is assigned or requeued waits from that moment on.
The release before works with it: its requeue leaves the column unchanged.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: None = None
depends_on: None = None

_UNFINISHED = sa.text("state <> 'completed'")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # One value for all existing rows, stored in the catalogue: no row is rewritten.
    op.add_column(
        "scan",
        sa.Column(
            "waiting_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
    )
    op.execute(
        "UPDATE scan SET waiting_since = received_at WHERE state IN ('received', 'queued', 'retryable')"
    )
    op.create_index(
        op.f("ix_scan_state_priority_waiting_since"),
        "scan",
        ["state", "priority", "waiting_since"],
        unique=False,
        postgresql_where=_UNFINISHED,
    )
    op.create_index(op.f("ix_attempt_started_at"), "attempt", ["started_at"], unique=False)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_attempt_started_at", "attempt")
    op.drop_index("ix_scan_state_priority_waiting_since", "scan")
    op.drop_column("scan", "waiting_since")
