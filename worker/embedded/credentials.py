"""The passwords of an embedded set: random per state folder, in one file that only its owner reads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.model.errors import DeploymentError
from worker.embedded.principals import Principal


def _random(n_bytes: int) -> Any:  # pydantic's own type for a field's default
    return Field(default_factory=lambda: secrets.token_hex(n_bytes))


class Keys(BaseModel):
    """The credentials of one principal."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    postgres_password: str = _random(16)
    s3_access_key: str = _random(10)
    s3_secret_key: str = _random(20)

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        return iter(())


class Credentials(Keys):
    """The credentials of the owner, who has all privileges, and of each principal.

    Generated once per state folder; never printed, logged or put on a command line.
    """

    valkey_password: str = _random(16)
    principals: Mapping[Principal, Keys] = Field(default_factory=dict)


def load_or_create(path: Path) -> Credentials:
    """Return the credentials of the folder; missing ones are generated.

    Raises: DeploymentError, where the file is damaged.
    """
    text = path.read_text() if path.exists() else "{}"
    try:
        stored = Credentials.model_validate_json(text)
    except ValidationError:
        # Not chained: the original error quotes the content.
        raise DeploymentError(
            f"{path} is damaged; delete the state folder to start again", code="state_damaged"
        ) from None
    keys = {principal: stored.principals.get(principal) or Keys() for principal in Principal}
    whole = stored.model_copy(update={"principals": keys})
    if (dumped := whole.model_dump_json(indent=1)) != text:
        write_private(path, dumped)
    return whole


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    opened = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(opened, "w") as file:
            file.write(text)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
