"""Alert rules, dashboard and runbooks speak of what there is: metrics, labels, commands, settings."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import typer.main
import yaml
from prometheus_client import CollectorRegistry
from promql_parser import AggregateExpr, MatchOp, VectorSelector

from db.queue_statistics import UNFINISHED, QueueStatistics, Waiting
from db.states import Priority
from pipeline.runtime.concurrency.batcher import Load
from tests.support.command_line import app
from worker.observability.process_metrics import ServiceCollector
from worker.observability.service_probe import ServiceProbe
from worker.observability.watcher_metrics import LedgerCollector, WatcherMetrics
from worker.observability.worker_metrics import EngineCollector, SpoolCollector, WorkerMetrics
from worker.queue.slots import Slots
from worker.settings import Settings, variable_of

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
ALERTS = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DEPLOY / "grafana" / "leukoflow.json").read_text(encoding="utf-8"))
RUNBOOKS = {path.name: path.read_text(encoding="utf-8") for path in (DEPLOY / "runbooks").glob("*.md")}
SCRAPED = {"job", "instance"}
"""Labels that Prometheus itself adds."""
FREE = {("leukoflow_failures_total", "code"), ("leukoflow_watcher_step_failures_total", "code")}
"""Labels whose values come with what happens."""


def probe_of(service: str, answer: object) -> ServiceProbe[Any]:
    probe = ServiceProbe(service, lambda: answer, 1.0)
    probe.probe_once()
    return probe


def watcher_registry() -> CollectorRegistry:
    metrics = WatcherMetrics()
    queue_statistics = QueueStatistics(dict.fromkeys(UNFINISHED, 0), dict.fromkeys(Priority, Waiting(0, 0.0)))
    ledger = probe_of("database", queue_statistics)
    metrics.registry.register(LedgerCollector(ledger))
    metrics.registry.register(ServiceCollector([ledger, *services()]))
    return metrics.registry


def worker_registry() -> CollectorRegistry:
    metrics = WorkerMetrics(Slots(2))
    metrics.report_health(lambda: True, lambda: 0.0)
    loads = dict.fromkeys(("segmenter", "classifier"), Load(0, 0, 0.0, 0, 8, 1))
    metrics.registry.register(EngineCollector(lambda: loads))
    metrics.registry.register(SpoolCollector(Path.cwd()))
    metrics.registry.register(ServiceCollector(services()))
    return metrics.registry


def services() -> list[ServiceProbe[Any]]:
    return [probe_of("broker", 0), probe_of("store", False)]


def values_of_labels() -> Mapping[str, Mapping[str, set[str]]]:
    """Return, by sample name, the labels of the code's metrics and the values that they have."""
    known: dict[str, dict[str, set[str]]] = {}
    for registry in (watcher_registry(), worker_registry()):
        for family in registry.collect():
            for sample in family.samples:
                labels = known.setdefault(sample.name, defaultdict(set))
                for name, value in sample.labels.items():
                    labels[name].add(value)
            if not family.samples:  # what has no line before something happened
                known[f"{family.name}_total" if family.type == "counter" else family.name] = defaultdict(set)
    return known


KNOWN = values_of_labels()


def nodes(expression: Any) -> Iterator[Any]:
    """Yield the expression and all within it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "param", "args", "vector_selector"):
        inner = getattr(expression, name, None)
        for part in inner if isinstance(inner, list) else [inner]:
            if part is not None:
                yield from nodes(part)


def wrong_in(text: str) -> list[str]:
    """Return what a PromQL expression names and the code does not have."""
    wrong = []
    expression = promql_parser.parse(text)
    for node in nodes(expression):
        if isinstance(node, VectorSelector):
            wrong += wrong_in_selector(node)
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            labels = (
                {label for known in KNOWN.values() for label in known}
                | SCRAPED
                | {label for _, label in FREE}
            )
            wrong += [f"label {label}" for label in node.modifier.labels if label not in labels]
    return wrong


def wrong_in_selector(selector: VectorSelector) -> list[str]:
    if selector.name not in KNOWN:
        return [f"metric {selector.name}"]
    wrong = []
    for matcher in selector.matchers.matchers:
        values = KNOWN[selector.name].get(matcher.name)
        if (selector.name, matcher.name) in FREE or matcher.name in SCRAPED:
            continue
        if values is None:
            wrong.append(f"label {matcher.name} of {selector.name}")
            continue
        asked = matcher.value.split("|") if matcher.op in (MatchOp.Re, MatchOp.NotRe) else [matcher.value]
        wrong += [f"{matcher.name}={value} of {selector.name}" for value in asked if value not in values]
    return wrong


def expressions_of_the_dashboard() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize(
    "text",
    [
        "max(leukoflow_no_such_metric)",
        'leukoflow_scans{state="complete"}',
        'leukoflow_scans{states="queued"}',
        "sum by (patient) (leukoflow_scans)",
        'rate(leukoflow_claims_ended_total{outcome=~"completed|lost"}[5m]) > 1',
        "vector(1) unless on () absent(leukoflow_scan)",
    ],
)
def test_an_expression_about_something_else_is_found_out(text: str) -> None:
    assert wrong_in(text)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_is_about_metrics_that_the_code_has(rule: Mapping[str, Any]) -> None:
    assert wrong_in(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]


@pytest.mark.parametrize(("title", "text"), expressions_of_the_dashboard())
def test_every_panel_is_about_metrics_that_the_code_has(title: str, text: str) -> None:
    assert wrong_in(text) == [], title


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in panels]
    assert all(x + w <= 24 for x, _, w, _ in places)
    covered = [(x + dx, y + dy) for x, y, w, h in places for dx in range(w) for dy in range(h)]
    assert len(set(covered)) == len(covered)
    (variable,) = DASHBOARD["templating"]["list"]
    used = set(re.findall(r"\$\{(\w+)\}", json.dumps(panels)))
    assert used == {variable["name"]}


def test_every_metric_of_our_own_is_watched_by_somebody() -> None:
    """What neither alert nor panel nor runbook asks for is not worth its line."""
    asked = "".join(rule["expr"] for rule in ALERTS)
    asked += "".join(text for _, text in expressions_of_the_dashboard()) + "".join(RUNBOOKS.values())
    ours = {name for name in KNOWN if name.startswith("leukoflow_") and not name.endswith("_created")}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in ours}
    assert {name for name in families if name not in asked} == {"leukoflow_service_answers_total"}


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    named = {rule["alert"]: Path(rule["annotations"]["runbook_url"]) for rule in ALERTS}
    assert len(named) == len(ALERTS)
    assert {path.parent for path in named.values()} == {Path("deploy/runbooks")}
    assert sorted(path.name for path in named.values()) == sorted(RUNBOOKS)
    for alert, path in named.items():
        assert RUNBOOKS[path.name].splitlines()[0] == f"# {alert}"


@pytest.mark.parametrize("name", sorted(RUNBOOKS))
def test_a_runbook_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    parts = re.findall(r"^\*\*(Means|Look at|Do)\*\*", RUNBOOKS[name], re.MULTILINE)
    assert parts == ["Means", "Look at", "Do"]
    for link in re.findall(r"\]\(([^)]+)\)", RUNBOOKS[name]):
        assert link in RUNBOOKS


def quoted(pattern: str) -> list[tuple[str, str]]:
    """Return (runbook, what it quotes), of what begins with the pattern."""
    return [
        (name, said)
        for name, text in sorted(RUNBOOKS.items())
        for said in re.findall(r"`([^`]+)`", text)
        if re.match(pattern, said)
    ]


@pytest.mark.parametrize(("runbook", "said"), quoted("leukoflow "))
def test_every_command_of_a_runbook_exists_with_its_options(runbook: str, said: str) -> None:
    assert wrong_in_command(said) == [], runbook


@pytest.mark.parametrize(
    "said", ["leukoflow restart", "leukoflow status --all", "leukoflow quarantine empty"]
)
def test_a_command_that_does_not_exist_is_found_out(said: str) -> None:
    assert wrong_in_command(said)


def wrong_in_command(said: str) -> list[str]:
    command: Any = typer.main.get_command(app)
    words = shlex.split(said)[1:]
    while words and (commands := getattr(command, "commands", None)):
        name = words.pop(0)
        if name not in commands:
            return [name]
        command = commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    return [word for word in words if word.startswith("-") and word not in options]


@pytest.mark.parametrize(("runbook", "said"), quoted("LEUKOFLOW_"))
def test_every_setting_of_a_runbook_exists(runbook: str, said: str) -> None:
    assert said in {variable_of(name) for name in Settings.model_fields}, runbook


@pytest.mark.parametrize(("runbook", "said"), quoted("(leukoflow|process)_"))
def test_every_metric_of_a_runbook_exists(runbook: str, said: str) -> None:
    assert said in KNOWN, runbook
