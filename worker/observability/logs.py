"""Logs: one JSON object a line on stderr, without patients, object keys or secrets. Set up by `configure`."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO
from uuid import UUID

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from pipeline.model.errors import LeukoflowError

_TELLING_WORDS = frozenset({"patient", "key", "password", "secret", "url", "accession", "mrn", "etag"})
_TELLING_NAMES = frozenset(
    {
        "specimen",
        "slide",
        "identity",
        "metadata",
        "filename",
        "file",
        "path",
        "prefix",
        "object",
        "object_name",
    }
)
# Digests only.
_HARMLESS_NAMES = frozenset({"run_key"})
_HARMLESS_TYPES = (str, int, float, bool, UUID, type(None))


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's events to `stream`, stderr by default, from `level` up.

    Of other libraries' messages only the template is written: their arguments quote URLs and values.
    """
    target = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_chain(), _renderer()],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    foreign = logging.StreamHandler(target)
    foreign.setFormatter(_ForeignFormatter())
    root = logging.getLogger()
    root.handlers = [foreign]
    root.setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(True)


def withhold(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return the event without fields that could tell a patient, a key or a secret; names what it took."""
    kept = {name: _plain(value) for name, value in event.items() if not _is_telling(name)}
    withheld = sorted(event.keys() - kept.keys())
    return kept | ({"withheld": withheld} if withheld else {})


def describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return the event with its exception as types and places.

    Only our own errors keep their sentence: messages of others quote keys, values and rows.
    """
    raised = event.pop("exc_info", None)
    error = raised[1] if isinstance(raised, tuple) else raised
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = exception_lines(error)
    return event


def exception_lines(error: BaseException) -> list[str]:
    """Return the exception and its causes, the outermost first: type, sentence if it is ours, frames."""
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        sentence = f": {current.sentence}" if isinstance(current, LeukoflowError) else ""
        lines.append(type(current).__qualname__ + sentence)
        lines += [
            f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(current.__traceback__)
        ]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return lines


class _ForeignFormatter(logging.Formatter):
    """Renders records of other libraries as our own events."""

    def format(self, record: logging.LogRecord) -> str:
        event: EventDict = {
            "event": str(record.msg),
            "logger": record.name,
            "level": record.levelname.lower(),
            "exc_info": record.exc_info,
        }
        for processor in _chain():
            event = _as_event(processor(None, record.levelname.lower(), event))
        rendered = _renderer()(None, record.levelname.lower(), event)
        return rendered if isinstance(rendered, str) else str(rendered)


def _chain() -> list[Processor]:
    return [
        # Which scan, which attempt, which worker: bound for as long as an analysis lasts.
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        withhold,
    ]


def _renderer() -> Processor:
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _as_event(rendered: object) -> EventDict:
    assert isinstance(rendered, dict)
    return rendered


def _is_telling(name: str) -> bool:
    if name in _HARMLESS_NAMES:
        return False
    return name in _TELLING_NAMES or bool(_TELLING_WORDS & set(name.lower().split("_")))


def _plain(value: object) -> object:
    """Return numbers, texts and lists of them; of anything else, whose repr may tell, its type."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items() if not _is_telling(str(name))}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, UUID):
        return str(value)
    return value if isinstance(value, _HARMLESS_TYPES) else f"<{type(value).__qualname__}>"
