"""What kustomize makes of deploy/kubernetes, against the published schemas. No cluster has seen it."""

from __future__ import annotations

import re
from importlib.metadata import version

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication

from tests.support.command_line import app
from tests.support.deployed import (
    KUBERNETES,
    OVERLAYS,
    built,
    manifests,
    of_kind,
    pods,
    run_tool,
    scaled_objects,
    services,
)
from worker.settings import Settings

KEDA = {"ScaledObject": ScaledObject, "TriggerAuthentication": TriggerAuthentication}
"""KEDA 2.16's own definitions, as models."""
RELEASES = ("1.33", "1.37")
SECRETS = {
    "leukoflow-watcher": "leukoflow-watcher",
    "leukoflow-worker": "leukoflow-worker",
    "leukoflow-worker-gpu": "leukoflow-worker",
    "leukoflow-migrate": "leukoflow-migrator",
}
SHOWN = {"database_url", "broker_url", "s3_access_key", "s3_secret_key"}
"""What watcher and worker show, each its own."""
EACH_POD = pytest.mark.parametrize(
    ("overlay", "name"),
    [("base", name) for name in list(SECRETS) if "gpu" not in name] + [("site", name) for name in SECRETS],
)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_fits_the_schema_of_kubernetes_strictly(overlay: str, release: str):
    for manifest in manifests(overlay):
        if manifest["kind"] not in KEDA:
            kubernetes_validate.validate(manifest, release, strict=True)


def test_kubernetes_validate_says_the_same():
    answer = run_tool(
        "kubernetes-validate", "--strict", "--quiet", "--no-warn", "/dev/stdin", given=built("site")
    )
    assert (answer.returncode, answer.stdout) == (0, "")


def test_a_mistake_would_be_found():
    text = built("base")
    broken = text.replace("terminationGracePeriodSeconds", "terminationGracePeriod")
    assert broken != text
    assert run_tool("kubernetes-validate", "--strict", "/dev/stdin", given=broken).returncode != 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_kedas_fits_its_definitions_and_holds_nothing_that_they_do_not_know(overlay: str):
    found = list(of_kind(overlay, *KEDA))
    assert {manifest["kind"] for manifest in found} == set(KEDA)
    for manifest in found:
        read = KEDA[manifest["kind"]].model_validate(manifest)
        assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest


@EACH_POD
def test_every_pod_is_confined(overlay: str, name: str):
    spec = pods(overlay)[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for bound in ("requests", "limits"):
        assert {"cpu", "memory"} <= container["resources"][bound].keys()


@EACH_POD
def test_secrets_come_as_files_of_the_process_own_secret(overlay: str, name: str):
    spec = pods(overlay)[name]["spec"]
    (container,) = spec["containers"]
    (secret,) = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert (secret["secretName"], secret["defaultMode"]) == (SECRETS[name], 0o440)
    needed = {"database_url"} if name == "leukoflow-migrate" else SHOWN
    assert {item["key"] for item in secret["items"]} == needed, "no more of it than the process asks for"
    assert all(item["key"] == item["path"] for item in secret["items"])
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "secrets"]
    assert mount["readOnly"] is True
    assert mount["mountPath"] == _settings_of(overlay)["LEUKOFLOW_SECRETS_DIR"]
    assert all("valueFrom" not in variable for variable in container.get("env", []))


@EACH_POD
def test_what_a_pod_names_is_there(overlay: str, name: str):
    spec = pods(overlay)[name]["spec"]
    (container,) = spec["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in spec["volumes"]
    }
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests(overlay)}
    assert ("ServiceAccount", spec["serviceAccountName"]) in names
    for source in container["envFrom"]:
        assert ("ConfigMap", source["configMapRef"]["name"]) in names
    for volume in spec["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names
    assert container["args"][0] in {
        entry.name for entry in (*app.registered_commands, *app.registered_groups)
    }
    assert re.fullmatch(
        rf"([\w./-]+/)?leukoflow(-gpu)?:{re.escape(version('leukoflow'))}", container["image"]
    )


@EACH_POD
def test_every_pod_reaches_what_it_needs_and_nobody_reaches_it_but_prometheus(overlay: str, name: str):
    labels = pods(overlay)[name]["metadata"]["labels"]
    policies = [
        policy["spec"]
        for policy in of_kind(overlay, "NetworkPolicy")
        if _selects(policy["spec"]["podSelector"], labels)
    ]
    assert any(policy["policyTypes"] == ["Ingress", "Egress"] for policy in policies)
    entries = [rule for policy in policies for rule in policy.get("ingress", [])]
    asked = overlay == "site" and name != "leukoflow-migrate"
    assert entries == ([_prometheus("observability")] if asked else [])
    ports = {
        port["port"] for policy in policies for rule in policy.get("egress", []) for port in rule["ports"]
    }
    assert ports == ({53, 5432} if name == "leukoflow-migrate" else {53, 5432, 6379, 8333})


def test_what_prometheus_asks_is_served_where_the_policy_lets_it_in():
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("site", "NetworkPolicy")}
    policy = policies["leukoflow-metrics"]
    port = int(_settings_of("site")["LEUKOFLOW_METRICS_PORT"])
    assert [entry["port"] for entry in policy["ingress"][0]["ports"]] == [port]
    assert _settings_of("site")["LEUKOFLOW_METRICS_HOST"] == "0.0.0.0"
    assert "LEUKOFLOW_METRICS_HOST" not in _settings_of("base")
    for name in (*scaled_objects(), "leukoflow-watcher"):
        (container,) = pods("site")[name]["spec"]["containers"]
        assert [declared["containerPort"] for declared in container["ports"]] == [port]


def test_without_a_site_the_metrics_are_for_a_prometheus_in_its_usual_namespace():
    text = (KUBERNETES / "metrics" / "network.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["spec"]["ingress"] == [_prometheus("monitoring")]


def test_every_budget_and_every_selector_means_its_own_pods():
    for kind in ("Deployment", "PodDisruptionBudget"):
        for owner in of_kind("site", kind):
            selector = owner["spec"]["selector"]
            chosen = {
                name for name, pod in pods("site").items() if _selects(selector, pod["metadata"]["labels"])
            }
            assert chosen == {owner["metadata"]["name"]}


def test_workers_stop_only_after_their_slides_alike_everywhere():
    graces = {pods("site")[name]["spec"]["terminationGracePeriodSeconds"] for name in scaled_objects()}
    assert graces == {7200}
    assert {services()[name]["stop_grace_period"] for name in ("worker", "worker-gpu")} == {"2h0m0s"}


def test_a_signal_is_heard_before_python_has_a_handler_for_it():
    """The kernel keeps from process 1 of a container every signal that it has no handler for."""
    for name in (*scaled_objects(), "leukoflow-watcher"):
        assert pods("site")[name]["spec"]["shareProcessNamespace"] is True
    for name in ("watcher", "worker", "worker-gpu"):
        assert services()[name]["init"] is True


def test_the_spool_holds_the_largest_scan_once_a_slot():
    slots = int(_settings_of("site")["LEUKOFLOW_WORKER_SLOTS"])
    needed_gib = slots * Settings.model_fields["max_file_bytes"].default / 2**30
    for name in scaled_objects():
        spec = pods("site")[name]["spec"]
        (spool,) = [
            volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"] if volume["name"] == "spool"
        ]
        limit = spec["containers"][0]["resources"]["limits"]["ephemeral-storage"]
        assert needed_gib <= int(spool.removesuffix("Gi")) <= int(limit.removesuffix("Gi"))


def test_kinds_of_worker_scale_on_the_same_number_a_worker_for_so_many_scans_as_it_has_slots():
    triggers = [scaled["spec"]["triggers"] for scaled in scaled_objects().values()]
    assert len(triggers) == 2
    assert triggers[0] == triggers[1]
    ((trigger,), _) = triggers
    assert trigger["type"] == "postgresql"
    assert trigger["metadata"]["targetQueryValue"] == _settings_of("base")["LEUKOFLOW_WORKER_SLOTS"]
    for name, scaled in scaled_objects().items():
        assert scaled["spec"]["scaleTargetRef"]["name"] == name
        assert (
            "replicas"
            not in next(one for one in of_kind("site", "Deployment") if one["metadata"]["name"] == name)[
                "spec"
            ]
        )


def test_the_gpu_worker_has_a_gpu_an_image_and_a_place_for_its_plans():
    spec = pods("site")["leukoflow-worker-gpu"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "LEUKOFLOW_ENGINE", "value": "tensorrt"} in container["env"]
    assert "leukoflow-gpu:" in container["image"]
    (plans,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "plans"]
    assert f"LEUKOFLOW_PLANS_DIR={plans}" in (KUBERNETES.parent / "Dockerfile.gpu").read_text()


def test_a_site_changes_what_it_means_to_change():
    assert [
        scaled_objects()[name]["spec"]["maxReplicaCount"]
        for name in ("leukoflow-worker", "leukoflow-worker-gpu")
    ] == [40, 2]
    assert _settings_of("site")["LEUKOFLOW_S3_ENDPOINT"] == "s3.laboratory.example:8333"
    assert _settings_of("site").keys() >= _settings_of("base").keys()


def _prometheus(namespace: str) -> dict[str, list[dict]]:
    """Return the one way in."""
    who = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
    return {"from": [who], "ports": [{"protocol": "TCP", "port": 9464}]}


def _settings_of(overlay: str) -> dict[str, str]:
    (settings,) = of_kind(overlay, "ConfigMap")
    return settings["data"]


def _selects(selector: dict, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", [])
    )
