"""Adds background scans, and indexes for finding and deleting expired scans.

The release before treats a background scan as a routine one. The indexes are on tables of a row or a few a
scan, and made while nobody writes to them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "scan", sa.Column("background", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.create_index(op.f("ix_scan_current_run_id"), "scan", ["current_run_id"], unique=False)
    op.create_index(
        op.f("ix_scan_same_content_as"),
        "scan",
        ["same_content_as"],
        unique=False,
        postgresql_where=sa.text("same_content_as IS NOT NULL"),
    )
    op.create_index(op.f("ix_artefact_object_name"), "artefact", ["object_name"], unique=False)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index(op.f("ix_artefact_object_name"), table_name="artefact")
    op.drop_index(op.f("ix_scan_same_content_as"), table_name="scan")
    op.drop_index(op.f("ix_scan_current_run_id"), table_name="scan")
    op.drop_column("scan", "background")
