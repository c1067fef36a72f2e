"""What deploy/ says, as the tools that would run it read it. No engine and no cluster is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("base", "site")


def tool(name: str) -> str:
    """Return the program that the development tools brought, which lies beside their interpreter."""
    path = Path(sys.executable).parent / name
    assert path.is_file(), f"{name} is not installed; requirements-dev.lock names it"
    return str(path)


def run_tool(name: str, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Return what became of the program."""
    return subprocess.run(
        [tool(name), *arguments], input=given, cwd=ROOT, capture_output=True, text=True, check=False
    )


@cache
def composed() -> dict[str, Any]:
    """Return compose.yaml with all its profiles, everything filled in."""
    answer = run_tool("docker-compose", "-f", str(COMPOSE), "--profile", "*", "config", "--format", "json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def services() -> dict[str, dict[str, Any]]:
    """Return the services of compose.yaml by name."""
    return composed()["services"]


@cache
def manifests(overlay: str) -> tuple[dict[str, Any], ...]:
    """Return what kustomize makes of an overlay."""
    return tuple(yaml.safe_load_all(built(overlay)))


@cache
def built(overlay: str) -> str:
    """Return what kustomize makes of an overlay, as YAML."""
    answer = run_tool("kubectl", "kustomize", str(KUBERNETES / overlay))
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def of_kind(overlay: str, *kinds: str) -> Iterator[dict[str, Any]]:
    """Yield an overlay's manifests of these kinds."""
    return (manifest for manifest in manifests(overlay) if manifest["kind"] in kinds)


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Return the pod templates of an overlay, by the name of what makes the pods."""
    return {
        owner["metadata"]["name"]: owner["spec"]["template"]
        for owner in of_kind(overlay, "Deployment", "Job")
    }


def scaled_objects() -> dict[str, dict[str, Any]]:
    """Return the ScaledObjects of the site, which has them all, by name."""
    return {scaled["metadata"]["name"]: scaled for scaled in of_kind("site", "ScaledObject")}
