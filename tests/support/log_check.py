"""No log of the session names a patient that the session used.

Who the patients are is heard where they enter: what goes into a bucket, and what goes into a ledger.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog
from sqlalchemy import Engine, event

from worker.ingest.identification import UNSPECIFIED
from worker.observability import logs

LISTED = ("patients", "specimens", "keys")
"""Parameters of the statements that register scans (`db.registration`)."""
STORED = "contents"
"""SeaweedFS' folder of what it stores; LevelDB calls its journal there a log."""
STORE_LOG = "seaweedfs.log"
"""The object store names an object by its key where a client deletes it or a read fails, and then its empty
folders, also at its quietest (-v=-1). Keys and their folders are let pass there, and nothing else: a log of
ours has no such excuse."""
PROCESS = re.compile(r"^\d+:[A-Z] |^[\d-]+ [\d:.]+ UTC \[\d+\]|\bpid=\d+")
"""How lines of Valkey and PostgreSQL begin: with the number of the process, which may be any patient's."""
MIN_CHARS = 3
"""What is shorter is found in every log: "P", "S1"."""
SHOWN = 20

identifiers: set[str] = set()
"""Patients, specimens and keys that were used so far."""


def note(names: Iterable[object]) -> None:
    """Remember that these name patients, specimens or their objects."""
    identifiers.update(name for name in names if isinstance(name, str) and name != UNSPECIFIED)


def named_lines(folder: Path, names: Iterable[str]) -> list[str]:
    """Return where a log below `folder` has one of the names in it, as `file:line: name`."""
    spelt = {spelling: name for name in names if len(name) >= MIN_CHARS for spelling in spellings_of(name)}
    if not spelt:
        return []
    # The longest first: a key before the patient in it. No letter or digit goes on on either side.
    words = "|".join(re.escape(spelling) for spelling in sorted(spelt, key=len, reverse=True))
    expression = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])")
    return [
        f"{path.relative_to(folder)}:{number}: {spelt[found[0]]}"
        for path in sorted(folder.rglob("*.log"))
        if STORED not in path.relative_to(folder).parts
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        for found in expression.finditer(PROCESS.sub("", line))
        if not (path.name == STORE_LOG and _is_of_a_key(found))
    ]


def _is_of_a_key(found: re.Match[str]) -> bool:
    """Return whether what was found is a key, by its folders or its ending, or a folder on the way to one."""
    before, after = found.string[: found.start()], found.string[found.end() :]
    return "/" in found[0] or "." in found[0] or before.endswith("/") or after.startswith("/")


def spellings_of(name: str) -> set[str]:
    """Return the ways in which logs spell a name: as it is, in JSON, in a URL, as Python."""
    return {name, json.dumps(name)[1:-1], quote(name), quote(name, safe=""), repr(name)[1:-1]}


@pytest.fixture(scope="session", autouse=True)
def no_log_names_a_patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let what is logged in this process lie beside the logs of all others; at the end read them all."""
    folder = tmp_path_factory.getbasetemp()
    event.listen(Engine, "before_cursor_execute", _note_registered)
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level
    with (folder / "session.log").open("w", encoding="utf-8") as log:
        logs.configure("debug", log)
        logging.captureWarnings(False)
        yield
        structlog.configure(**before)
        root.handlers, root.level = handlers, level
    event.remove(Engine, "before_cursor_execute", _note_registered)
    found = named_lines(folder, identifiers)
    if found:
        shown = "\n".join(found[:SHOWN])
        pytest.fail(
            f"{len(found)} lines of the session's logs in {folder} name patients:\n{shown}", pytrace=False
        )


def _note_registered(*told: object) -> None:
    parameters = told[3]
    if isinstance(parameters, Mapping):
        for name in LISTED:
            note(parameters.get(name) or ())
