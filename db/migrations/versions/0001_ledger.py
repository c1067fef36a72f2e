"""The ledger: patients, scans, attempts, runs, cells, differentials, artefacts, bundles, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: None = None
depends_on: None = None

_APPEND_ONLY = """
CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only' USING ERRCODE = 'restrict_violation';
END
$$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("scan_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_index(op.f("ix_event_scan_id_id"), "event", ["scan_id", "id"], unique=False)
    op.create_table(
        "model_bundle",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("manifest", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_model_bundle")),
    )
    op.create_table(
        "patient",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient")),
        sa.UniqueConstraint("external_id", name=op.f("uq_patient_external_id")),
    )
    op.create_table(
        "specimen",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patient.id"], name=op.f("fk_specimen_patient_id_patient")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_specimen")),
        sa.UniqueConstraint("patient_id", "external_id", name=op.f("uq_specimen_patient_id_external_id")),
    )
    op.create_table(
        "scan",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("content_digest", sa.Text(), nullable=True),
        sa.Column("specimen_id", sa.Uuid(), nullable=True),
        sa.Column("slide_name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("priority", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column("claims", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sends", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claim_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tiles_done", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tiles_planned", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cells_found", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("same_content_as", sa.Uuid(), nullable=True),
        sa.Column("current_run_id", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(claim_token IS NULL) = (state <> 'running')", name=op.f("ck_scan_running_has_claim")
        ),
        sa.CheckConstraint(
            "(specimen_id IS NULL) = (state = 'unassigned')", name=op.f("ck_scan_unassigned_has_no_specimen")
        ),
        sa.CheckConstraint("content_digest ~ '^[0-9a-f]{64}$'", name=op.f("ck_scan_content_digest")),
        sa.CheckConstraint("priority IN ('stat', 'routine')", name=op.f("ck_scan_priority")),
        sa.CheckConstraint(
            "state <> 'completed' OR (current_run_id IS NOT NULL AND completed_at IS NOT NULL)",
            name=op.f("ck_scan_completed_has_run"),
        ),
        sa.CheckConstraint(
            "state <> 'running' OR (claimed_by IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("ck_scan_running_has_lease"),
        ),
        sa.CheckConstraint(
            "state IN ('received', 'queued', 'running', 'completed', 'retryable',"
            " 'unassigned', 'quarantined')",
            name=op.f("ck_scan_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('unassigned', 'quarantined', 'retryable') OR reason IS NOT NULL",
            name=op.f("ck_scan_stopped_has_reason"),
        ),
        sa.CheckConstraint("attempts >= 0 AND max_attempts > 0", name=op.f("ck_scan_attempts")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_scan_size_bytes")),
        sa.ForeignKeyConstraint(["same_content_as"], ["scan.id"], name=op.f("fk_scan_same_content_as_scan")),
        sa.ForeignKeyConstraint(["specimen_id"], ["specimen.id"], name=op.f("fk_scan_specimen_id_specimen")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scan")),
        sa.UniqueConstraint(
            "bucket", "object_key", "version", name=op.f("uq_scan_bucket_object_key_version")
        ),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        op.f("ix_scan_content_digest"),
        "scan",
        ["content_digest"],
        unique=False,
        postgresql_where=sa.text("content_digest IS NOT NULL"),
    )
    op.create_index(op.f("ix_scan_specimen_id"), "scan", ["specimen_id"], unique=False)
    op.create_index(op.f("ix_scan_state_received_at"), "scan", ["state", "received_at"], unique=False)
    op.create_table(
        "attempt",
        sa.Column("scan_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(32), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('completed', 'failed', 'lost', 'handed_back')", name=op.f("ck_attempt_outcome")
        ),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (outcome IS NULL)", name=op.f("ck_attempt_finished_has_outcome")
        ),
        sa.ForeignKeyConstraint(["scan_id"], ["scan.id"], name=op.f("fk_attempt_scan_id_scan")),
        sa.PrimaryKeyConstraint("scan_id", "number", name=op.f("pk_attempt")),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("scan_id", sa.Uuid(), nullable=False),
        sa.Column("scan_digest", sa.Text(), nullable=False),
        sa.Column("bundle_digest", sa.Text(), nullable=False),
        sa.Column("spec_digest", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("software_version", sa.Text(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("reasons", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("flags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("file_format", sa.Text(), nullable=False),
        sa.Column("scanner", sa.Text(), nullable=True),
        sa.Column("objective", sa.Double(), nullable=True),
        sa.Column("width_px0", sa.Integer(), nullable=False),
        sa.Column("height_px0", sa.Integer(), nullable=False),
        sa.Column("file_mpp_um", sa.Double(), nullable=True),
        sa.Column("mpp_um", sa.Double(), nullable=False),
        sa.Column("scale_source", sa.String(32), nullable=False),
        sa.Column("tissue_fraction", sa.Double(), nullable=False),
        sa.Column("focus", sa.Double(), nullable=False),
        sa.Column("stain_contrast", sa.Double(), nullable=False),
        sa.Column("free_red_cells_per_mm2", sa.Double(), nullable=False),
        sa.Column("tiles_planned", sa.Integer(), nullable=False),
        sa.Column("tiles_empty", sa.Integer(), nullable=False),
        sa.Column("tiles_analysed", sa.Integer(), nullable=False),
        sa.Column("n_found", sa.Integer(), nullable=False),
        sa.Column("n_leukocytes", sa.Integer(), nullable=False),
        sa.Column("n_unidentified", sa.Integer(), nullable=False),
        sa.Column("n_artefacts", sa.Integer(), nullable=False),
        sa.Column("probability_classes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("timing_stages", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("timing_s", postgresql.ARRAY(sa.REAL()), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "scale_source IN ('file', 'red_cells', 'leukocytes', 'assumed')", name=op.f("ck_run_scale_source")
        ),
        sa.CheckConstraint(
            "status IN ('reportable', 'insufficient', 'rejected')", name=op.f("ck_run_status")
        ),
        sa.CheckConstraint(
            "mpp_um > 0 AND (file_mpp_um IS NULL OR file_mpp_um > 0)", name=op.f("ck_run_mpp_um")
        ),
        sa.CheckConstraint(
            "n_found >= 0 AND n_leukocytes >= 0 AND n_unidentified >= 0 AND n_artefacts >= 0"
            " AND n_found >= n_leukocytes + n_unidentified + n_artefacts",
            name=op.f("ck_run_cells_add_up"),
        ),
        sa.CheckConstraint("tiles_planned = tiles_empty + tiles_analysed", name=op.f("ck_run_tiles_add_up")),
        sa.CheckConstraint("width_px0 > 0 AND height_px0 > 0", name=op.f("ck_run_size_px0")),
        sa.ForeignKeyConstraint(
            ["bundle_digest"], ["model_bundle.digest"], name=op.f("fk_run_bundle_digest_model_bundle")
        ),
        sa.ForeignKeyConstraint(["scan_id"], ["scan.id"], name=op.f("fk_run_scan_id_scan")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint("scan_id", "scan_digest", "bundle_digest", "spec_digest", name="uq_run_key"),
    )
    op.create_table(
        "artefact",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("object_name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_artefact_size_bytes")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_artefact_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", "bucket", "object_name", name=op.f("pk_artefact")),
    )
    op.create_table(
        "cell",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("x_px0", sa.Integer(), nullable=False),
        sa.Column("y_px0", sa.Integer(), nullable=False),
        sa.Column("width_px0", sa.Integer(), nullable=False),
        sa.Column("height_px0", sa.Integer(), nullable=False),
        sa.Column("centroid_x_px0", sa.Double(), nullable=False),
        sa.Column("centroid_y_px0", sa.Double(), nullable=False),
        sa.Column("area_px0", sa.Double(), nullable=False),
        sa.Column("nucleus_area_px0", sa.Double(), nullable=False),
        sa.Column("area_um2", sa.Double(), nullable=False),
        sa.Column("nucleus_area_um2", sa.Double(), nullable=False),
        sa.Column("score", sa.REAL(), nullable=False),
        sa.Column("touches_edge", sa.Boolean(), nullable=False),
        sa.Column("cell_class", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("probability", sa.REAL(), nullable=False),
        sa.Column("disagreement", sa.REAL(), nullable=False),
        sa.Column("probabilities", postgresql.ARRAY(sa.REAL()), nullable=False),
        sa.Column("nucleus_points", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("contour_px0", sa.LargeBinary(), nullable=False),
        sa.Column("nucleus_contours_px0", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("status IN ('accepted', 'unidentified', 'artefact')", name=op.f("ck_cell_status")),
        sa.CheckConstraint("probability BETWEEN 0 AND 1.000001", name=op.f("ck_cell_probability")),
        sa.CheckConstraint("width_px0 > 0 AND height_px0 > 0", name=op.f("ck_cell_bbox_px0")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_cell_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", "ordinal", name=op.f("pk_cell")),
    )
    op.create_table(
        "differential",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("cell_class", sa.String(32), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Double(), nullable=True),
        sa.Column("ci_low_percent", sa.Double(), nullable=True),
        sa.Column("ci_high_percent", sa.Double(), nullable=True),
        sa.Column("denominator", sa.String(32), nullable=False),
        sa.CheckConstraint(
            "denominator IN ('leukocytes', 'per_100_leukocytes', 'none')",
            name=op.f("ck_differential_denominator"),
        ),
        sa.CheckConstraint('"count" >= 0', name=op.f("ck_differential_count")),
        sa.CheckConstraint(
            "(ci_low_percent IS NULL) = (ci_high_percent IS NULL)", name=op.f("ck_differential_interval")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_differential_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", "cell_class", name=op.f("pk_differential")),
        sa.UniqueConstraint("run_id", "ordinal", name=op.f("uq_differential_run_id_ordinal")),
    )
    op.create_foreign_key(op.f("fk_scan_current_run_id_run"), "scan", "run", ["current_run_id"], ["id"])
    op.execute(_APPEND_ONLY)
    op.execute(
        "CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE ON event"
        " FOR EACH ROW EXECUTE FUNCTION event_is_append_only()"
    )
    op.execute(
        "CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON event"
        " FOR EACH STATEMENT EXECUTE FUNCTION event_is_append_only()"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_constraint("fk_scan_current_run_id_run", "scan")
    for name in (
        "differential",
        "cell",
        "artefact",
        "run",
        "attempt",
        "scan",
        "specimen",
        "patient",
        "model_bundle",
        "event",
    ):
        op.drop_table(name)
    op.execute("DROP FUNCTION event_is_append_only()")
