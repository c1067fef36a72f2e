"""demo: the whole way, on servers of its own, with scans of several patients."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from db.database import Database
from db.reads import counts_by_state, record_results_read, results_of_patient, total_progress
from db.records import PatientResult, Progress
from db.states import Priority, ScanState
from pipeline.model.errors import DeploymentError, UsageError
from pipeline.model.wording import counted
from pipeline.synth.plan import demo_slides, field_specs
from pipeline.synth.smear import draw_smear
from worker.cli.bundles import ProfileOption, asked_profile
from worker.cli.output_files import made_folder
from worker.cli.result_tables import patient_table
from worker.cli.scan_files import asked_files
from worker.cli.submit import Delivery
from worker.cli.synth import write_field, write_slide
from worker.embedded import EmbeddedSet
from worker.embedded.child_process import Child
from worker.embedded.leukoflow_processes import running_leukoflow
from worker.key_pattern import KeyPattern
from worker.settings import Settings
from worker.storage.object_store import open_object_store

PATIENTS = 4
FIELDS = 12
SEED = 1
MARKER = ".leukoflow-demo"
REFRESH_S = 0.5
ENDED = frozenset({ScanState.COMPLETED, ScanState.QUARANTINED, ScanState.UNASSIGNED})


@dataclass(frozen=True, slots=True)
class Upload:
    """A file and whose it is."""

    path: Path
    patient: str
    specimen: str


def demo(
    scans: Annotated[Path | None, typer.Option(help="Folder of your own scans; none: drawn ones.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo leaves.")] = Path(
        "build/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the drawn scans.")] = SEED,
    patients: Annotated[
        int, typer.Option(min=1, help="Among how many patients the scans are dealt.")
    ] = PATIENTS,
    profile: ProfileOption = None,
) -> None:
    """Drop scans of several patients into a bucket, and watch them become differentials."""
    console = Console(markup=False)
    asked = asked_profile(profile)
    chosen = {} if asked is None else {"profile": asked.value}
    given = None if scans is None else [file.path for file in asked_files([scans])]
    _empty(out, scans)
    files = list(_drawn(out / "scans", seed, console)) if given is None else given
    uploads = deal(files, patients)
    started_s = time.monotonic()
    servers = EmbeddedSet(out / "servers")
    with closing_all(servers), running_leukoflow(servers, **chosen) as children:
        console.print(f"servers up in {time.monotonic() - started_s:.1f} s; watcher and worker started")
        settings = servers.settings()
        _drop(settings, uploads)
        with Database(settings.database_url.get_secret_value()) as database:
            _follow(console, database, children, len(uploads))
            found = list(_results(database, sorted({upload.patient for upload in uploads})))
            counts = _counts(database)
            _keep_pictures(settings, found, out / "pictures")
    _conclude(console, found, counts, out)


def _empty(out: Path, scans: Path | None) -> None:
    """Make the folder anew; only a folder that a demo made is ever emptied.

    Raises: UsageError, where it is anybody else's, or the scans lie in it.
    """
    if scans is not None and scans.resolve().is_relative_to(out.resolve()):
        raise UsageError("the scans lie in the folder that the demo empties", code="out_holds_scans")
    if out.exists() and not (out / MARKER).exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} was not made by a demo; name another folder", code="out_not_ours")
    shutil.rmtree(out, ignore_errors=True)
    (made_folder(out) / MARKER).touch()


@contextmanager
def closing_all(servers: EmbeddedSet) -> Iterator[None]:
    """Start the servers; at the end stop them, and leave nothing of theirs outside the demo's folder."""
    try:
        servers.start()
        yield
    finally:
        servers.delete_outside()


def deal(files: Iterable[Path], patients: int) -> list[Upload]:
    """Return each file with one of the made-up patients, in turn."""
    return [
        Upload(path, f"DEMO-{number % patients + 1:03d}", f"S{number % patients + 1:03d}-1")
        for number, path in enumerate(files)
    ]


def _drawn(folder: Path, seed: int, console: Console) -> Iterator[Path]:
    folder.mkdir(parents=True)
    truths = folder.parent / "truth"
    truths.mkdir()
    with console.status("drawing blood smears"):
        slides = [(f"slide-{n}.tif", spec, write_slide) for n, spec in enumerate(demo_slides(seed), start=1)]
        fields = [
            (f"field-{n:02d}.jpg", spec, write_field)
            for n, spec in enumerate(field_specs(seed, FIELDS), start=1)
        ]
        for name, spec, write in (*slides, *fields):
            path = folder / name
            write(path, draw_smear(spec))
            path.with_suffix(".truth.json").rename(truths / f"{path.stem}.truth.json")
            yield path


def _drop(settings: Settings, uploads: Iterable[Upload]) -> None:
    store, pattern = (
        open_object_store(settings, settings.bucket_scans),
        KeyPattern.parse(settings.key_pattern),
    )
    for upload in uploads:
        Delivery(store, pattern, upload.patient, upload.specimen).put(upload.path, Priority.ROUTINE)


def _follow(console: Console, database: Database, children: Iterable[Child], expected: int) -> None:
    """Show the progress until every upload has ended."""
    started_s = time.monotonic()
    children = tuple(children)
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            with database.transaction() as connection:
                counts, progress = counts_by_state(connection), total_progress(connection)
            elapsed_s = time.monotonic() - started_s
            live.update(_progress_table(counts, progress, elapsed_s))
            if sum(counts[state] for state in ENDED) >= expected == sum(counts.values()):
                return
            if not all(child.is_running() for child in children):
                raise DeploymentError(
                    "watcher or worker ended by itself; its log in servers/logs says why",
                    code="process_ended",
                )
            time.sleep(REFRESH_S)


def _progress_table(counts: dict[ScanState, int], progress: Progress, elapsed_s: float) -> Table:
    table = Table(title=f"{elapsed_s:.0f} s", title_justify="left", show_header=False)
    table.add_row(
        "scans", ", ".join(f"{counts[state]} {state.value}" for state in ScanState if counts[state])
    )
    table.add_row("tiles", f"{progress.tiles_done} of {progress.tiles_planned}")
    cells = progress.cells_found
    table.add_row("cells", f"{cells}, {cells / max(elapsed_s, 1e-9):.1f} a second")
    return table


def _results(database: Database, patients: Iterable[str]) -> Iterator[PatientResult]:
    for patient in patients:
        with database.transaction() as connection:
            found = results_of_patient(connection, patient)
            if found is not None:
                record_results_read(connection, found.patient_id, reader="demo", purpose="leukoflow demo")
                yield found


def _counts(database: Database) -> dict[ScanState, int]:
    with database.transaction() as connection:
        return counts_by_state(connection)


def _keep_pictures(settings: Settings, found: Iterable[PatientResult], folder: Path) -> None:
    store = open_object_store(settings, settings.bucket_results)
    for patient in found:
        for slide in patient.slides:
            target = folder / patient.patient / slide.slide_name
            for artefact in slide.run.artefacts if slide.run else ():
                target.mkdir(parents=True, exist_ok=True)
                with (target / artefact.object_name.rsplit("/", 1)[-1]).open("wb") as file:
                    store.get_to(store.stat(artefact.object_name).stored, file, settings.max_file_bytes)


def _conclude(console: Console, found: list[PatientResult], counts: dict[ScanState, int], out: Path) -> None:
    for patient in found:
        console.print(patient_table(patient))
    ended = " + ".join(f"{counts[state]} {state.value}" for state in ScanState if state in ENDED)
    console.print(f"{counted(sum(counts.values()), 'scan')} registered = {ended}", highlight=False)
    for slide in (
        slide for patient in found for slide in patient.slides if slide.state not in (ScanState.COMPLETED,)
    ):
        console.print(f"  {slide.slide_name}: {slide.state.value}. {slide.reason}", highlight=False)
    console.print(f"pictures, a folder a slide: {out / 'pictures'}", highlight=False, soft_wrap=True)
    console.print(f"logs: {out / 'servers' / 'logs'}", highlight=False, soft_wrap=True)
