"""A watcher or worker of a deployment that serves its health and metrics, and asking it."""

from __future__ import annotations

import http.client
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.deployment import Deployment
from worker.embedded.child_process import Child
from worker.embedded.free_ports import LOOPBACK
from worker.embedded.leukoflow_processes import start_process
from worker.settings import variable_of

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Served:
    """A running process and the port that it is asked on."""

    child: Child
    log: Path
    port: int

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and text; (0, "") where nobody answers."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def is_ready(self) -> bool:
        return self.ask("/ready")[0] == 200

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return every sample, by its name and labels."""
        status, text = self.ask("/metrics")
        assert status == 200
        families = text_string_to_metric_families(text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics().get((f"leukoflow_{name}", frozenset(labels.items())))

    def events(self) -> list[Mapping[str, object]]:
        """Return what it logged, without the lines that are none of its events."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def serving(deployment: Deployment, command: str, module: str = "worker", **values: str) -> Served:
    """Return `leukoflow <command>`, started with further settings and serving on a port of its own."""
    log = deployment.folder / f"{command}-{uuid.uuid4().hex}.log"
    said = {variable_of(name): value for name, value in {"metrics_port": "0", **values}.items()}
    path = os.pathsep.join([str(ROOT), *filter(None, [deployment.environment.get("PYTHONPATH")])])
    environment = {**deployment.environment, **said, "PYTHONPATH": path}
    child = start_process(command, environment, deployment.folder, log, module)
    deployment.children.append(child)
    served = Served(child, log, 0)

    def ports() -> list[object]:
        return [event["port"] for event in served.events() if event["event"] == "health_served"]

    deployment.until(lambda: bool(ports()) or not child.is_running(), DEADLINE_S)
    assert child.is_running(), log.read_text()
    return Served(child, log, int(str(ports()[0])))
