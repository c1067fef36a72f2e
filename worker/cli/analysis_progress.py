"""How far a command has come, for whoever sits before the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(files: int) -> Iterator[Callable[[], None]]:
    """Return what says that one more file is done; a bar on stderr shows it, if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("files"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=files == 1 or not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # else what is piped would go to the terminal
    ) as progress:
        task = progress.add_task("files", total=files)
        yield lambda: progress.advance(task)
