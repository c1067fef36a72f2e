"""`make chaos`: a thousand scans, two hundred faults. Writes build/chaos.json, prints a table, exits 1 where
anything is lost, double or wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.laboratory import laboratory_in
from tests.chaos.plan import many
from tests.chaos.run import Report, run_chaos
from tests.chaos.scans import drawn_scans

TARGET = Path("build/chaos.json")
SCANS, FAULT_COUNT, POISONED = 1000, 240, 5
RECOVERY_TARGET_S = 30.0


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--scans", type=int, default=SCANS)
    parser.add_argument("--faults", type=int, default=FAULT_COUNT)
    parser.add_argument("--seed", type=int, default=20261125)
    asked = parser.parse_args()
    poisoned = frozenset(range(7, asked.scans, max(1, asked.scans // POISONED)))
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, laboratory_in(Path(name)) as lab:
        scans = list(drawn_scans(asked.scans, poisoned, Path(name)))
        report = run_chaos(lab, scans, many(asked.seed, asked.faults), asked.seed)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(_told(report, asked.seed), indent=1) + "\n")
    _print(report)
    verdict = report.verdict
    return 1 if verdict.lost or verdict.double or verdict.wrong else 0


def _told(report: Report, seed: int) -> dict[str, object]:
    verdict = report.verdict
    return {
        "scans": report.scans,
        "faults": sum(report.faults.values()),
        "lost": len(verdict.lost),
        "double": len(verdict.double),
        "wrong": len(verdict.wrong),
        "recovery_s_max": round(max((s for _, s in report.recoveries_s), default=0.0), 2),
        "took_s": round(report.took_s),
        "seed": seed,
        "faults_by_class": {kind.value: times for kind, times in sorted(report.faults.items())},
        "astray": [*verdict.lost, *verdict.double, *verdict.wrong],
    }


def _print(report: Report) -> None:
    print("| fault | times | slowest recovery |\n|---|---|---|")
    for kind, times in report.faults.items():
        slowest = max((s for which, s in report.recoveries_s if which is kind), default=None)
        print(f"| {kind.value} | {times} | {'' if slowest is None else f'{slowest:.1f} s'} |")
    verdict = report.verdict
    print(
        f"\n{report.scans} scans, {sum(report.faults.values())} faults in {report.took_s:.0f} s: "
        f"{len(verdict.lost)} lost, {len(verdict.double)} double, {len(verdict.wrong)} wrong"
    )
    for line in (*verdict.lost, *verdict.double, *verdict.wrong)[:20]:
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
