"""The command line. `main` turns a named failure into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import version

from pipeline.model.errors import DeploymentError, InputError, LeukoflowError, TransientError, UsageError
from worker.exit_codes import EXIT_CONFIG, EXIT_TRANSIENT, EXIT_USAGE

EXIT_CODES: tuple[tuple[type[LeukoflowError], int], ...] = (
    (UsageError, EXIT_USAGE),
    (InputError, EXIT_USAGE),
    (TransientError, EXIT_TRANSIENT),
    (DeploymentError, EXIT_CONFIG),
)


def main() -> None:
    """Run the command line; never returns."""
    if sys.argv[1:] == ["--version"]:
        # At once: the commands load all that analyses.
        print(version("leukoflow"))
        sys.exit(0)
    from worker.cli.application import Command, application

    first = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        application(Command(first) if first in list(Command) else None)()
    except LeukoflowError as error:
        print(f"leukoflow: {error.sentence}", file=sys.stderr)
        sys.exit(next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1))
    except BrokenPipeError:
        # Whoever read us has read enough.
        _discard_output()
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print("leukoflow: the disk is full; free some space and try again", file=sys.stderr)
        _discard_output()
        sys.exit(EXIT_TRANSIENT)


def _discard_output() -> None:
    """Send to nowhere what Python would flush at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


__all__ = ["main"]
