"""The release before this one at work on this one's schema: while it is upgraded, and beside its processes.

`previous.zip` is that release's code, without commands and training. With each release it is made anew:

    git archive --format=zip -9 -o tests/upgrade/previous.zip TAG db worker pipeline \
        ':(exclude)pipeline/models' ':(exclude)pipeline/training' ':(exclude)pipeline/synth' \
        ':(exclude)pipeline/networks' ':(exclude)worker/cli' ':(exclude)worker/embedded'
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from db import reanalysis, revision, schema
from db.reanalysis import ReanalysisFilter
from db.states import ScanState
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import Deployment, deployment_on
from tests.support.revisions import bring_down_to
from worker.embedded.child_process import Child
from worker.embedded.leukoflow_processes import start_process

pytestmark = [pytest.mark.services, pytest.mark.long]

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "pipeline" / "models"


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the previous release's code."""
    folder = tmp_path_factory.mktemp("previous")
    with zipfile.ZipFile(HERE / "previous.zip") as packed:
        packed.extractall(folder)
    return folder


@dataclass
class Before:
    """Processes of the release before, in a deployment of this one."""

    deployment: Deployment
    code: Path

    def environment(self) -> dict[str, str]:
        """Return it with the owner's login: that release knew no roles."""
        (bundle,) = MODELS.iterdir()
        return {
            **self.deployment.environment,
            "PYTHONPATH": f"{self.code}:{HERE}",
            "LEUKOFLOW_BUNDLE": str(bundle),
        }

    def start(self, command: str) -> Child:
        log = self.deployment.folder / f"previous-{command}-{len(self.deployment.children)}.log"
        child = start_process(command, self.environment(), self.deployment.folder, log, module="run_previous")
        self.deployment.children.append(child)
        return child

    def results(self, patient: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "run_previous", "results", patient],
            cwd=self.deployment.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout


@pytest.fixture
def before(embedded, tmp_path, previous) -> Iterator[Before]:
    with deployment_on(embedded, tmp_path) as deployment:
        yield Before(deployment, previous)


def ask(deployment: Deployment, question: str) -> list[tuple]:
    with deployment.database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(question))]


def drop(deployment: Deployment, *numbers: int) -> None:
    for number in numbers:
        deployment.drop(f"P-1/S-1/{number}.jpg", field_jpeg(40 + number))


def revision_of(previous: Path) -> str:
    versions = sorted(path.stem for path in (previous / "db" / "migrations" / "versions").glob("0*.py"))
    return versions[-1].split("_")[0]


def test_the_release_before_is_one_with_an_older_schema(previous):
    assert revision_of(previous) < revision.head_revision()


def test_the_release_before_does_all_its_work_on_the_new_schema(before):
    deployment = before.deployment
    before.start("watch")
    before.start("worker")
    drop(deployment, 0, 1)
    deployment.drop("P-1/S-1/broken.jpg", b"no picture")
    deployment.drop("nameless.jpg", field_jpeg(50))
    deployment.until_ended(4)
    assert (deployment.counts()[ScanState.COMPLETED], deployment.counts()[ScanState.QUARANTINED]) == (2, 1)
    cells = ask(deployment, "SELECT count(*) FROM cell")[0][0]
    assert before.results("P-1") == f"3 {cells}\n"
    assert ask(deployment, "SELECT kind, detail ->> 'reader' FROM event ORDER BY id DESC LIMIT 1") == [
        ("results_read", "r")
    ]


@pytest.mark.parametrize(("old", "new"), [("watch", "worker"), ("worker", "watch")])
def test_processes_of_both_releases_work_together(before, old, new):
    deployment = before.deployment
    before.start(old)
    deployment.start(new)
    drop(deployment, 0, 1)
    deployment.until_ended(2)
    # What only this release asks for, the one before does as well, if not as late.
    with deployment.database.transaction() as connection:
        wanted = ReanalysisFilter(datetime(2020, 1, 1, tzinfo=UTC), reanalysis.database_time(connection))
        assert len(reanalysis.reanalyse(connection, wanted)) == 2
    deployment.until_ended(2)
    assert deployment.counts()[ScanState.COMPLETED] == 2
    assert {row.attempts for row in deployment.rows()} == {1}


def test_the_schema_is_upgraded_while_the_release_before_is_at_work(before, previous):
    deployment = before.deployment
    url = deployment.settings.database_url.get_secret_value()
    bring_down_to(url, revision_of(previous))
    watcher, worker = before.start("watch"), before.start("worker")
    drop(deployment, *range(4))
    deployment.until(lambda: completed_of(deployment) >= 1)
    schema.upgrade(url)
    schema.apply_roles(url)
    drop(deployment, *range(4, 8))
    deployment.until_ended(8)
    assert deployment.counts()[ScanState.COMPLETED] == 8
    assert watcher.is_running()
    assert worker.is_running()
    deployment.stop()
    deployment.start("watch")
    deployment.start("worker")
    drop(deployment, 8)
    deployment.until_ended(9)
    assert deployment.counts()[ScanState.COMPLETED] == 9
    assert ask(deployment, "SELECT count(*), count(DISTINCT scan_id) FROM run") == [(9, 9)]


def completed_of(deployment: Deployment) -> int:
    """Return how many scans are completed, whatever the schema."""
    return ask(deployment, "SELECT count(*) FROM scan WHERE state = 'completed'")[0][0]
