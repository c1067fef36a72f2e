"""Views for SQL clients: patient_run, patient_differential, scan_status."""

from __future__ import annotations

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: None = None
depends_on: None = None

# If a patient has the same file twice, only the latest run counts: no cell is counted twice.
_PATIENT_RUN = """
CREATE VIEW patient_run AS
SELECT specimen.patient_id,
       scan.id AS scan_id,
       run.id AS run_id,
       run.status <> 'rejected' AND row_number() OVER (
           PARTITION BY specimen.patient_id, run.scan_digest ORDER BY run.finished_at DESC, run.id DESC
       ) = 1 AS pooled
FROM scan
JOIN specimen ON specimen.id = scan.specimen_id
JOIN run ON run.id = scan.current_run_id
"""

# The line of a parent includes the counts of its children, as in every differential.
_PATIENT_DIFFERENTIAL = """
CREATE VIEW patient_differential AS
WITH pooled AS (
    SELECT patient.external_id AS patient, run.id AS run_id,
           sum(run.n_leukocytes) OVER (PARTITION BY patient.external_id) AS n_leukocytes,
           count(*) OVER (PARTITION BY patient.external_id) AS n_slides
    FROM patient_run
    JOIN patient ON patient.id = patient_run.patient_id
    JOIN run ON run.id = patient_run.run_id
    WHERE patient_run.pooled
)
SELECT pooled.patient,
       differential.cell_class,
       sum(differential.count)::bigint AS count,
       pooled.n_leukocytes::bigint AS n_leukocytes,
       CASE WHEN differential.denominator <> 'none' AND pooled.n_leukocytes > 0
            THEN 100.0 * sum(differential.count)::double precision / pooled.n_leukocytes::double precision
       END AS percent,
       differential.denominator,
       pooled.n_slides
FROM pooled
JOIN differential ON differential.run_id = pooled.run_id
GROUP BY pooled.patient, differential.cell_class, differential.denominator,
         pooled.n_leukocytes, pooled.n_slides
"""

_SCAN_STATUS = """
CREATE VIEW scan_status AS
SELECT scan.id AS scan_id,
       patient.external_id AS patient,
       specimen.external_id AS specimen,
       scan.slide_name,
       scan.state,
       scan.error_code,
       scan.reason,
       scan.priority,
       scan.attempts,
       scan.max_attempts,
       scan.claimed_by,
       scan.tiles_done,
       scan.tiles_planned,
       scan.cells_found,
       run.status,
       run.n_leukocytes,
       run.flags,
       scan.same_content_as,
       scan.received_at,
       scan.completed_at,
       scan.updated_at
FROM scan
LEFT JOIN specimen ON specimen.id = scan.specimen_id
LEFT JOIN patient ON patient.id = specimen.patient_id
LEFT JOIN run ON run.id = scan.current_run_id
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(_PATIENT_RUN)
    op.execute(_PATIENT_DIFFERENTIAL)
    op.execute(_SCAN_STATUS)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for view in ("scan_status", "patient_differential", "patient_run"):
        op.execute(f"DROP VIEW {view}")
