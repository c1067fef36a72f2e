"""`make chaos`: a thousand scans, more than two hundred faults. Writes build/chaos.json and the logs beside
it, prints a table, exits 1 where anything is lost, double or wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.faults import FaultKind
from tests.chaos.laboratory import laboratory_in
from tests.chaos.plan import SINGLE_DEATHS, Plan, many
from tests.chaos.run import Recovery, Report, run_chaos
from tests.chaos.scans import drawn_scans

TARGET, LOGS = Path("build/chaos.json"), Path("build/chaos-logs")
SCANS, FAULT_COUNT, POISONED = 1000, 240, 5
RECOVERY_TARGET_S = 30.0
FOLLOWING = 8
"""faults told of a death from which the recovery took longer than that"""


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--scans", type=int, default=SCANS)
    parser.add_argument("--faults", type=int, default=FAULT_COUNT)
    parser.add_argument("--seed", type=int, default=20261125)
    asked = parser.parse_args()
    poisoned = frozenset(range(7, asked.scans, max(1, asked.scans // POISONED)))
    plan = Plan(alone=SINGLE_DEATHS, close=many(asked.seed, asked.faults))
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, laboratory_in(Path(name)) as lab:
        scans = list(drawn_scans(asked.scans, poisoned, Path(name)))
        report = run_chaos(lab, scans, plan, asked.seed)
        shutil.copytree(lab.folder, LOGS, ignore=shutil.ignore_patterns("spool"), dirs_exist_ok=True)
    TARGET.write_text(json.dumps(_told(report, plan, asked.seed), indent=1) + "\n")
    _print(report)
    verdict = report.verdict
    return 1 if verdict.lost or verdict.double or verdict.wrong else 0


def _told(report: Report, plan: Plan, seed: int) -> dict[str, object]:
    verdict = report.verdict
    return {
        "scans": report.scans,
        "faults": sum(report.faults.values()),
        "lost": len(verdict.lost),
        "double": len(verdict.double),
        "wrong": len(verdict.wrong),
        "recovery_s_max": _slowest(report.recoveries),
        "recovery_alone_s_max": _slowest(one for one in report.recoveries if one.number is None),
        "took_s": round(report.took_s),
        "seed": seed,
        "faults_by_class": {kind.value: times for kind, times in sorted(report.faults.items())},
        "slow": [
            {
                "fault": slow.kind.value,
                "recovery_s": round(slow.took_s, 2),
                "followed_by": [kind.value for kind in _following(slow, plan)],
            }
            for slow in report.recoveries
            if slow.took_s > RECOVERY_TARGET_S
        ],
        "astray": [*verdict.lost, *verdict.double, *verdict.wrong],
    }


def _following(recovery: Recovery, plan: Plan) -> tuple[FaultKind, ...]:
    if recovery.number is None:
        return ()
    return plan.close[recovery.number + 1 : recovery.number + 1 + FOLLOWING]


def _slowest(recoveries: Iterable[Recovery]) -> float:
    return round(max((one.took_s for one in recoveries), default=0.0), 2)


def _print(report: Report) -> None:
    print("| fault | times | recovery alone | slowest recovery amid others |\n|---|---|---|---|")
    for kind, times in report.faults.items():
        alone = [one for one in report.recoveries if one.kind is kind and one.number is None]
        amid = [one for one in report.recoveries if one.kind is kind and one.number is not None]
        print(f"| {kind.value} | {times} | {_cell(alone)} | {_cell(amid)} |")
    verdict = report.verdict
    print(
        f"\n{report.scans} scans, {sum(report.faults.values())} faults in {report.took_s:.0f} s: "
        f"{len(verdict.lost)} lost, {len(verdict.double)} double, {len(verdict.wrong)} wrong"
    )
    for line in (*verdict.lost, *verdict.double, *verdict.wrong)[:20]:
        print(f"  {line}")


def _cell(recoveries: list[Recovery]) -> str:
    return f"{_slowest(recoveries):.1f} s" if recoveries else ""


if __name__ == "__main__":
    sys.exit(main())
