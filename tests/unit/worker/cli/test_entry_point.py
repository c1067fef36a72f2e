"""The command line's entry: --version at once, -h on every command, completion in the shell."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from tests.support.command_line import app
from worker.exit_codes import EXIT_TRANSIENT

HEAVY = {"numpy", "scipy", "cv2", "sqlalchemy", "alembic", "celery", "onnxruntime", "openvino", "torch"}
"""libraries that take a second to load"""
VERSION = """
import sys
from worker.cli import main
sys.argv = ["leukoflow", "--version"]
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_version_is_told_without_loading_what_analyses() -> None:
    answer = python("-c", VERSION)
    assert (answer.returncode, answer.stdout) == (0, f"{version('leukoflow')}\n")
    assert set(answer.stderr.split()) & HEAVY == set()
    assert "worker" in answer.stderr.split()


def test_every_command_tells_of_itself_by_h_as_by_help() -> None:
    runner = CliRunner()
    for path in _paths(typer.main.get_command(app)):
        short, long = (runner.invoke(app, [*path, option]) for option in ("-h", "--help"))
        assert (short.exit_code, long.exit_code) == (0, 0), path
        assert short.stdout == long.stdout
        assert "Usage:" in short.stdout


def test_the_shell_completes_commands_and_options() -> None:
    for words, expected in (("leukoflow quar", ["quarantine"]), ("leukoflow analyse --eng", ["--engine"])):
        answer = python(
            "-c",
            "import sys; from worker.cli import main; sys.argv = ['leukoflow']; main()",
            _LEUKOFLOW_COMPLETE="complete_bash",
            COMP_WORDS=words,
            COMP_CWORD=str(words.count(" ")),
        )
        assert answer.stdout.split() == expected, answer.stderr


def test_output_to_a_full_disk_ends_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(
            [sys.executable, "-m", "worker", "models", "list"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert answer.returncode == EXIT_TRANSIENT
    assert answer.stderr == "leukoflow: the disk is full; free some space and try again\n"


def _paths(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of every command and group below this one, and of itself."""
    below = getattr(command, "commands", {})
    return [path, *(deeper for name, sub in below.items() for deeper in _paths(sub, (*path, name)))]
