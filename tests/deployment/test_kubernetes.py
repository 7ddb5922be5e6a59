"""The Kubernetes manifests: of Kubernetes's own schemas, of one piece, and of what the engine really has."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from coordinator_node.api.readiness import HealthJudge
from coordinator_node.cli.main import app
from coordinator_node.config.settings import load_settings, variable_names
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.reports.health import Facts, Waiting
from coordinator_node.services.model_shards import SHARDS

type Manifest = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "deployment" / "kubernetes"
OLDEST, NEWEST = "1.30", "1.36"
ROLES = {"feed", "predict", "score", "checkpoint", "report"}
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def documents(file: str) -> list[Manifest]:
    return list(yaml.safe_load_all((FOLDER / file).read_text()))


def listed() -> list[str]:
    resources: list[str] = documents("kustomization.yaml")[0]["resources"]
    return resources


APPLIED = [manifest for file in listed() for manifest in documents(file)]


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of_kind(*kinds: str) -> Iterator[Manifest]:
    return (manifest for manifest in APPLIED if manifest["kind"] in kinds)


def named(kind: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in of_kind(kind)}


WORKLOADS = list(of_kind("Deployment", "Job"))


def pod(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest) -> Manifest:
    [only] = pod(workload)["containers"]
    found: Manifest = only
    return found


def test_every_file_is_applied_but_those_that_say_why_not() -> None:
    others = {"kustomization.yaml", "secrets.example.yaml", "prometheus-adapter.yaml"}
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*listed(), *others}


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", [*APPLIED, *documents("secrets.example.yaml")], ids=name_of)
def test_the_manifests_are_what_kubernetes_takes(manifest: Manifest, kubernetes: str) -> None:
    assert kubernetes_validate.validate(manifest, kubernetes, strict=True) == kubernetes


def test_the_check_sees_a_misspelled_key() -> None:
    wrong = json.loads(json.dumps(WORKLOADS[0]))
    container(wrong)["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_there_is_a_deployment_a_role_and_a_job_that_migrates() -> None:
    assert set(named("Deployment")) == {f"coordinator-{role}" for role in ROLES}
    for workload in WORKLOADS:
        interpreter, *arguments = container(workload)["command"]
        if interpreter == "python":
            assert arguments[0] == "-m"
            assert importlib.util.find_spec(arguments[1]) is not None
        else:
            assert interpreter == "coordinator-node"
            assert arguments == ["migrate"]
            assert any(
                command.callback.__name__ == "migrate" for command in app.registered_commands if command.callback
            )


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_no_container_is_root_or_changes_its_own_files(workload: Manifest) -> None:
    user = pod(workload)["securityContext"]
    assert user["runAsNonRoot"] is True
    assert user["runAsUser"] > 0
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(workload)["automountServiceAccountToken"] is False
    # Kubernetes would set REPORT_API_PORT=tcp://… for a Service of that name.
    assert pod(workload)["enableServiceLinks"] is False
    made = container(workload)
    assert made["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert made["resources"]["limits"]["memory"]
    assert set(made["resources"]["requests"]) == {"cpu", "memory"}
    places = {mount["name"]: mount["mountPath"] for mount in made["volumeMounts"]}
    assert places["tmp"] == "/tmp"
    assert set(places) == {volume["name"] for volume in pod(workload)["volumes"]}


def test_the_image_is_the_one_that_the_manifests_take_for_granted() -> None:
    lines = (FOLDER.parents[1] / "Dockerfile").read_text().splitlines()
    [user] = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert {str(pod(each)["securityContext"]["runAsUser"]) for each in WORKLOADS} == {*user.split(":")}
    assert any("WORKER_ALIVE_FILE=/tmp/alive" in line.split() for line in lines)
    [image] = documents("kustomization.yaml")[0]["images"]
    assert image["newTag"] == version("coordinator-node")


def test_settings_are_ones_that_the_engine_reads_and_refuses_nothing() -> None:
    known = {name for names in variable_names().values() for name in names}
    settings = named("ConfigMap")["coordinator-settings"]["data"]
    secrets = documents("secrets.example.yaml")[0]["stringData"]
    set_there = {variable["name"]: variable["value"] for w in WORKLOADS for variable in container(w).get("env", [])}
    assert set(settings) | set(secrets) | set(set_there) <= known
    assert not set(settings) & set(secrets)
    load_settings({**settings, **secrets, **set_there})
    for workload in WORKLOADS:
        assert container(workload)["envFrom"] == [
            {"configMapRef": {"name": "coordinator-settings"}},
            {"secretRef": {"name": documents("secrets.example.yaml")[0]["metadata"]["name"]}},
        ]


def test_probes_and_service_ask_where_something_listens() -> None:
    settings = load_settings({})
    for name, deployment in named("Deployment").items():
        made = container(deployment)
        ports = {port["name"]: port["containerPort"] for port in made["ports"]}
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(*ports.values())
        if name == "coordinator-report":
            assert ports == {"http": settings.report_api_port}
            assert made["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
            [service] = named("Service").values()
            assert service["spec"]["ports"][0]["targetPort"] == "http"
        else:
            assert {"name": "WORKER_METRICS_PORT", "value": str(ports["metrics"])} in made["env"]
            for probe in ("readinessProbe", "livenessProbe"):
                assert "/tmp/alive" in made[probe]["exec"]["command"][2]
    rules = [rule for each in of_kind("NetworkPolicy") for rule in each["spec"]["ingress"]]
    opened = {port["port"] for rule in rules for port in rule["ports"]}
    assert opened == {
        port["containerPort"] for each in named("Deployment").values() for port in container(each)["ports"]
    }


def test_the_probes_tell_a_beating_worker_from_a_silent_one(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    command = container(named("Deployment")["coordinator-feed"])["readinessProbe"]["exec"]["command"]

    def ready() -> bool:
        asked = [part.replace("/tmp/alive", str(alive)) for part in command]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    assert not ready()
    alive.touch()
    assert ready()
    subprocess.run(["touch", "--date", "20 seconds ago", str(alive)], check=True)
    assert not ready()


def test_selectors_find_the_pods_they_mean() -> None:
    labels = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in named("Deployment").items()}
    for name, deployment in named("Deployment").items():
        assert deployment["spec"]["selector"]["matchLabels"] == labels[name]
    for kind in ("PodDisruptionBudget", "Service"):
        for name, manifest in named(kind).items():
            selector = manifest["spec"]["selector"]
            assert selector.get("matchLabels", selector) == labels[name]


def test_a_node_may_be_drained_and_every_role_of_several_goes_on() -> None:
    for name, deployment in named("Deployment").items():
        autoscaler = named("HorizontalPodAutoscaler").get(name)
        fewest = autoscaler["spec"]["minReplicas"] if autoscaler else deployment["spec"]["replicas"]
        # An autoscaler and a number of replicas would undo one another.
        assert ("replicas" in deployment["spec"]) != (autoscaler is not None)
        budget = named("PodDisruptionBudget").get(name)
        assert (budget is not None) == (fewest > 1)
        assert budget is None or budget["spec"]["minAvailable"] < fewest


def test_the_autoscalers_look_at_a_metric_that_the_api_shows() -> None:
    config = CrunchConfig()
    judge = HealthJudge(load_settings({}), config, "head")
    facts = Facts("head", waiting=[Waiting("score", 1, NOW), Waiting("predict", 1, NOW)])
    shown = {
        (sample.name, sample.labels.get("stage")) for metric in judge.metrics(facts, NOW) for sample in metric.samples
    }
    for name, autoscaler in named("HorizontalPodAutoscaler").items():
        assert autoscaler["spec"]["scaleTargetRef"]["name"] == name
        [metric] = [each["external"]["metric"] for each in autoscaler["spec"]["metrics"] if each["type"] == "External"]
        assert (metric["name"], metric["selector"]["matchLabels"]["stage"]) in shown
        [rule] = documents("prometheus-adapter.yaml")[0]["rules"]["external"]
        assert metric["name"] in rule["seriesQuery"]
        # Two competitions of one cluster have the same series.
        assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}}
        assert "<<.LabelMatchers>>" in rule["metricsQuery"]
    assert named("HorizontalPodAutoscaler")["coordinator-predict"]["spec"]["maxReplicas"] == SHARDS


def test_kustomize_renders_all_of_it() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which renders the folder, is not on this machine")
    done = subprocess.run([kubectl, "kustomize", str(FOLDER)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    assert sorted(map(name_of, rendered)) == sorted(map(name_of, APPLIED))
    images = {container(each)["image"] for each in rendered if each["kind"] in ("Deployment", "Job")}
    [image] = documents("kustomization.yaml")[0]["images"]
    assert images == {f"{image['newName']}:{image['newTag']}"}
