"""Every setting that deploy/ names exists, and the example of the environment lists all, as they are."""

from __future__ import annotations

import re

import pytest

from tests.support.deployed import DEPLOY, OVERLAYS, of_kind, services
from worker.settings import FILE_SUFFIX, SECRETS_DIR, Settings, load, variable_of
from worker.settings_table import settings_table

EXAMPLE = DEPLOY / "leukoflow.env.example"
KNOWN = {variable_of(name) for name in Settings.model_fields}
REQUIRED = {
    "database_url": "postgresql+psycopg://leukoflow:x@postgres/leukoflow",
    "broker_url": "redis://:x@valkey:6379/0",
    "s3_access_key": "x",
    "s3_secret_key": "x",
}
ENDPOINT = "s3.laboratory.example:8333"


def rendered() -> str:
    """Return the example's list: each setting with its description and its default."""
    lines = []
    for variable, default, description in re.findall(
        r"^\| `(\w+)` \| (.*?) \| (.*) \|$", settings_table(), re.MULTILINE
    ):
        told = re.fullmatch(r"`([^`]*)`", default)
        if default == "required" and variable != variable_of("s3_endpoint"):
            field = variable.removeprefix("LEUKOFLOW_").lower()
            setting = f"{variable}{FILE_SUFFIX}=/run/secrets/{field}"
        elif default == "required":
            setting = f"{variable}={ENDPOINT}"
        else:
            setting = f"#{variable}={told[1] if told else ''}"
        in_words = f"; default: {default}" if default and default != "required" and not told else ""
        lines.append(f"# {description}{in_words}\n{setting}\n")
    return "\n".join(lines)


def test_the_example_lists_every_setting_as_it_is():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert text[text.index("# folder of the model bundle") :] == rendered()


def test_every_setting_that_is_named_exists():
    named = {}
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.relative_to(DEPLOY).parts[0] != "secrets":
            for variable in re.findall(r"LEUKOFLOW_[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8")):
                named.setdefault(variable.removesuffix(FILE_SUFFIX), path)
    assert {variable: path for variable, path in named.items() if variable not in KNOWN | {SECRETS_DIR}} == {}
    assert named.keys() >= KNOWN


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_of_kubernetes_load(overlay: str, monkeypatch: pytest.MonkeyPatch):
    (settings,) = of_kind(overlay, "ConfigMap")
    _load(settings["data"], monkeypatch)


@pytest.mark.parametrize("name", ["migrate", "watcher", "worker", "worker-gpu", "reader", "keeper"])
def test_the_settings_of_compose_load(name: str, monkeypatch: pytest.MonkeyPatch):
    _load(services()[name]["environment"], monkeypatch)


def _load(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Load them, and see that each got to its field."""
    for variable, value in variables.items():
        if variable != SECRETS_DIR:
            monkeypatch.setenv(variable, value)
    loaded = load(Settings, **REQUIRED)
    for variable, value in variables.items():
        if variable != SECRETS_DIR:
            field = getattr(loaded, variable.removeprefix("LEUKOFLOW_").lower())
            assert str(field).lower() == value.lower()
