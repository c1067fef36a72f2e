"""Tasks that are no scan's id, as anybody who reaches the broker could send them by Celery."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from celery import Celery, signature

from worker.queue.scan_message import TASK_NAME

NO_ID = "00000000-0000-0000-0000-000000000000"
UNKNOWN_TASK = "os.system"
Sending = Callable[[Celery, Path], object]
"""takes the application, and a place where nothing may be afterwards"""


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def sent(*arguments: object, name: str = TASK_NAME, **more: object) -> Sending:
    return lambda app, _mark: app.send_task(name, args=list(arguments), **more)


def pickled(app: Celery, mark: Path) -> None:
    app.send_task(TASK_NAME, args=[Bomb(mark)], serializer="pickle")


HOSTILE_TASKS: dict[str, Sending] = {
    "a pickle": pickled,
    "a task of another name": sent("true", name=UNKNOWN_TASK),
    "a task that Celery brings along": sent(
        {"task": TASK_NAME, "args": [], "kwargs": {}, "options": {}}, [[NO_ID]], name="celery.map"
    ),
    "no argument": sent(),
    "two arguments": sent(NO_ID, NO_ID),
    "an argument by name": sent(kwargs={"scan_id": NO_ID, "command": "true"}),
    "an argument that is no id": sent("1; DROP TABLE scan"),
    "a number": sent(7),
    "a tree": sent({"a": [{"b": None}]}),
    "nothing": sent(None),
    "a long text": sent("x" * 500_000),
    "an errand on success": sent(NO_ID, link=signature("celery.backend_cleanup")),
    "an errand on failure": sent(NO_ID, link_error=signature("celery.backend_cleanup")),
    "a chain": sent(NO_ID, chain=[signature("celery.backend_cleanup")]),
    "a little that becomes a lot": sent("x" * (64 << 20), compression="zlib"),
}
