"""The command line. `main` turns a named failure into one line and an exit code."""

from __future__ import annotations

import os
import sys

from pipeline.model.errors import DeploymentError, InputError, LeukoflowError, TransientError, UsageError
from worker.cli.application import app

EXIT_CODES: tuple[tuple[type[LeukoflowError], int], ...] = (
    (UsageError, 2),
    (InputError, 2),
    (TransientError, 75),
    (DeploymentError, 78),
)
"""2 as every command line; 75 and 78 are EX_TEMPFAIL and EX_CONFIG of sysexits.h."""


def main() -> None:
    """Run the command line; never returns."""
    try:
        app()
    except LeukoflowError as error:
        print(f"leukoflow: {error.sentence}", file=sys.stderr)
        sys.exit(next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1))
    except BrokenPipeError:
        # Whoever read us has read enough; what Python would flush at its end has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


__all__ = ["app", "main"]
