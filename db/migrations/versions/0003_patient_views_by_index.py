"""Partitions the windows of the views by patient number, so that a query for one patient uses the index.

PostgreSQL pushes a condition below a window function only if it is on a partition key. Columns are added at
the end of patient_run and nothing else changes, so the release before works with it.
"""

from __future__ import annotations

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: None = None
depends_on: None = None

# patient is as unique as patient_id: partitioning by both is the same as by either.
_PATIENT_RUN = """
CREATE OR REPLACE VIEW patient_run AS
SELECT specimen.patient_id,
       scan.id AS scan_id,
       run.id AS run_id,
       run.status <> 'rejected' AND row_number() OVER (
           PARTITION BY specimen.patient_id, patient.external_id, run.scan_digest
           ORDER BY run.finished_at DESC, run.id DESC
       ) = 1 AS pooled,
       patient.external_id AS patient,
       run.n_leukocytes
FROM scan
JOIN specimen ON specimen.id = scan.specimen_id
JOIN patient ON patient.id = specimen.patient_id
JOIN run ON run.id = scan.current_run_id
"""

_POOLED_LINES = """
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

_PATIENT_DIFFERENTIAL = (
    """
CREATE OR REPLACE VIEW patient_differential AS
WITH pooled AS (
    SELECT patient, run_id,
           sum(n_leukocytes) OVER (PARTITION BY patient) AS n_leukocytes,
           count(*) OVER (PARTITION BY patient) AS n_slides
    FROM patient_run
    WHERE pooled
)
"""
    + _POOLED_LINES  # nosec B608
)

_PATIENT_RUN_BEFORE = """
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

_PATIENT_DIFFERENTIAL_BEFORE = (
    """
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
"""
    + _POOLED_LINES  # nosec B608
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(_PATIENT_RUN)
    op.execute(_PATIENT_DIFFERENTIAL)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP VIEW patient_differential")
    op.execute("DROP VIEW patient_run")
    op.execute(_PATIENT_RUN_BEFORE)
    op.execute(_PATIENT_DIFFERENTIAL_BEFORE)
