"""Validates messages: a worker accepts the id of a scan for its one task, and drops everything else."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from uuid import UUID

import structlog
from kombu.message import Message
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.model.errors import LeukoflowError

TASK_NAME = "leukoflow.analyse_scan"

MAX_MESSAGE_BYTES = 1 << 20
"""A thousand times the size of a real message. The embedded broker accepts nothing larger."""


class NotAScanMessage(LeukoflowError):
    """A message that is not the id of a scan."""

    def __init__(self, part: str) -> None:
        super().__init__("a message that is not a scan message was dropped", code="message_ignored")
        self.part = part
        """the part that differs from a scan message"""


class _Part(BaseModel):
    # Strict: no type conversion. Celery does not read fields that are not listed here.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)


class _Headers(_Part):
    """Celery's protocol, version 2, without schedules, groups, callbacks or compression."""

    task: Annotated[str, Field(pattern=f"^{re.escape(TASK_NAME)}$")]
    id: str
    lang: str | None = None
    root_id: str | None = None
    parent_id: None = None
    group: None = None
    group_index: None = None
    shadow: None = None
    eta: None = None
    expires: None = None
    timelimit: tuple[None, None] | None = None
    retries: int = Field(default=0, ge=0)
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool = False
    replaced_task_nesting: int = 0
    stamped_headers: None = None
    stamps: Annotated[dict[str, None], Field(max_length=0)] | None = None
    compression: None = None  # a small message could expand to a huge one


class _Callbacks(_Part):
    """The callbacks after the arguments, all of which have to be absent."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


class _DeliveryInfo(_Part):
    exchange: str
    routing_key: str


class _Properties(_Part):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"]
    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_mode: int | None = None
    priority: int = 0


class _Envelope(_Part):
    """A message as stored in a Redis list."""

    body: Base64Bytes
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _Headers
    properties: _Properties


_NOTHING = Annotated[dict[str, None], Field(max_length=0)]
_BODY = TypeAdapter(tuple[tuple[UUID], _NOTHING, _Callbacks])
"""Positional arguments, keyword arguments, callbacks."""


def require_envelope(raw: bytes) -> None:
    """Raises: NotAScanMessage, where the bytes are not a scan message as Celery stores it in a Redis list."""
    if len(raw) > MAX_MESSAGE_BYTES:
        raise NotAScanMessage("size")
    try:
        envelope = _Envelope.model_validate_json(raw)
        _BODY.validate_json(envelope.body)
    except ValidationError as error:
        raise NotAScanMessage(_part_of(error)) from None


def require_scan_message(message: Message) -> None:
    """Raises: NotAScanMessage, where the message is not the analysis task with the id of one scan."""
    if len(message.body) > MAX_MESSAGE_BYTES:
        raise NotAScanMessage("size")
    if (message.content_type, message.content_encoding) != ("application/json", "utf-8"):
        raise NotAScanMessage("content")
    try:
        _Headers.model_validate(message.headers, strict=False)
        _BODY.validate_json(message.body)
    except ValidationError as error:
        raise NotAScanMessage(_part_of(error)) from None


def _part_of(error: ValidationError) -> str:
    """Return the name of the first invalid part. The error itself would quote the content."""
    place = error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
    return str(place[0]) if place else "json"


def log_dropped(error: NotAScanMessage) -> None:
    """Log which part of a message was invalid, but never its content."""
    structlog.get_logger().warning(error.code, part=error.part)
