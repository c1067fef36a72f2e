"""Adds an index for finding the attempts of a lost worker.

The release before works with it. Claims wait while it is built: a second or two for some millions of
attempts.
"""

from __future__ import annotations

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("CREATE INDEX ix_attempt_worker ON attempt (worker) WHERE outcome = 'lost' OR outcome IS NULL")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP INDEX ix_attempt_worker")
