"""The passwords of an embedded set: random per state folder, in one file that only its owner reads."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import DeploymentError


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Generated once per state folder; never printed, logged or put on a command line."""

    postgres_password: str
    valkey_password: str
    s3_access_key: str
    s3_secret_key: str


def load_or_create(path: Path) -> Credentials:
    """Return the folder's credentials, made at random where there are none yet.

    Raises: DeploymentError, where the file is there but unreadable.
    """
    if not path.exists():
        fresh = Credentials(
            postgres_password=secrets.token_hex(16),
            valkey_password=secrets.token_hex(16),
            s3_access_key=secrets.token_hex(10),
            s3_secret_key=secrets.token_hex(20),
        )
        write_private(path, json.dumps(asdict(fresh), indent=1))
        return fresh
    try:
        return Credentials(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise DeploymentError(
            f"{path} is damaged; remove the state folder to start afresh", code="state_damaged"
        ) from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    opened = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w") as file:
        file.write(text)
    partial.replace(path)
