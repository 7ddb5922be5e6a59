"""What docker-compose.yml promises, read from its text; a run of it is `make deploy && make verify-e2e`."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deploy_cases import ROOT, SCAFFOLD, compose_of, text_of

from coordinator_node.config.settings import Settings, variable_names

OWN = ROOT / "docker-compose.yml"
WORKSPACES = SCAFFOLD / "node" / "docker-compose.yml"
WORKERS = ("feed-worker", "predict-worker", "score-worker", "checkpoint-worker", "report-worker")
OURS = (*WORKERS, "migrate", "model-orchestrator")
# What a container's own surroundings decide.
FIXED = {"REPORT_API_HOST": "0.0.0.0", "BACKFILL_DATA_DIR": "/data/backfill", "WORKER_ALIVE_FILE": "/tmp/alive"}
# What only docker-compose.yml reads.
CONTAINERS_OWN = {
    "PUBLISH_ADDRESS",
    "POSTGRES_IMAGE",
    "POSTGRES_MEMORY",
    "WORKER_MEMORY",
    "SCORE_WORKER_MEMORY",
    "MODELS_MEMORY",
    "MODELS_INTERNAL",
    "DATA_INTERNAL",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return compose_of(OWN)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_a_workspaces_file_is_the_same_but_for_what_it_builds_and_which_models_it_runs() -> None:
    ours, theirs = compose_of(OWN), compose_of(WORKSPACES)
    assert ours["services"]["migrate"]["build"].pop("context") == "."
    assert theirs["services"]["migrate"]["build"].pop("context") == ".."
    assert ours["services"]["migrate"]["build"].pop("dockerfile") == "Dockerfile"
    assert theirs["services"]["migrate"]["build"].pop("dockerfile") == "node/Dockerfile"
    models = ours["services"]["model-orchestrator"]["volumes"].pop(0)
    assert models == "./coordinator_node/local/demo_workspace/submissions:/submissions:ro"
    assert theirs["services"]["model-orchestrator"]["volumes"].pop(0) == "./submissions:/submissions:ro"
    assert ours == theirs


def test_every_variable_of_the_engine_reaches_every_worker(services: dict[str, dict[str, Any]]) -> None:
    every = {name for names in variable_names().values() for name in names}
    for name in (*WORKERS, "migrate"):
        service = services[name]
        environment = service["environment"]
        assert set(environment) == every
        # Given without a value, they are those of the terminal or of --env-file, and otherwise not set.
        given = {key: value for key, value in environment.items() if value is not None}
        assert given == FIXED | {"CRUNCH_ID": "${CRUNCH_ID:-starter-challenge}"}
        # For the options of feeds, whose names nobody knows.
        assert service["env_file"] == [".local.env"]


def test_what_the_file_is_filled_in_with_is_in_the_example_with_the_same_default() -> None:
    text = OWN.read_text()
    used = dict(re.findall(r"\$\{([A-Z_]+)(?::-([^}]*))?", text)) | dict.fromkeys(
        re.findall(r"\$\{([A-Z_]+):\?", text), "starter"
    )
    used.pop("COMPOSE_PROJECT_NAME")
    example = (ROOT / ".local.env.example").read_text()
    assert set(used) - {names[0] for names in variable_names().values()} == CONTAINERS_OWN
    for name in CONTAINERS_OWN:
        assert f"# {name}={used[name]}\n" in example
    for name in set(used) - CONTAINERS_OWN - {"REPORT_UI_BUILD_CONTEXT"}:
        default = Settings.model_fields[name.lower()].get_default(call_default_factory=True)
        plain = default.get_secret_value() if name == "POSTGRES_PASSWORD" else str(default)
        assert used[name] == plain, name


def test_every_role_is_there_and_none_is_named_so_that_it_could_not_be_scaled(
    services: dict[str, dict[str, Any]],
) -> None:
    assert set(services) == {*OURS, "postgres", "report-ui"}
    assert all("container_name" not in service for service in services.values())
    for name in WORKERS:
        assert services[name]["command"][-1].startswith("coordinator_node.workers.")
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["restart"] == "no"
    assert services["postgres"]["image"] == "${POSTGRES_IMAGE:-postgres:17-alpine}"
    assert services["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql/data"]


def test_what_is_ours_can_change_nothing_and_become_nobody(services: dict[str, dict[str, Any]]) -> None:
    for name in OURS:
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "user" not in service  # the image's, which is not root
        assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode"} & set(service)
    for service in services.values():
        assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("file", [OWN, WORKSPACES], ids=["own", "workspace's"])
def test_no_container_has_the_socket_of_docker(file: Path) -> None:
    assert "docker.sock" not in file.read_text()
    for service in compose_of(file)["services"].values():
        for volume in service.get("volumes", ()):
            source, _, mode = volume.partition(":")
            # A folder of the machine is only read.
            assert not source.startswith((".", "/")) or (source.startswith("./") and mode.endswith(":ro"))


def test_only_what_must_reaches_the_internet(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    networks = compose["networks"]
    assert networks["data"]["internal"] == "${DATA_INTERNAL:-true}"
    assert networks["models"]["internal"] == "${MODELS_INTERNAL:-true}"
    assert networks["public"]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    on = {name: set(service["networks"]) for name, service in services.items()}
    assert [name for name in on if "internet" in on[name]] == ["feed-worker"]
    assert [name for name in on if "public" in on[name]] == ["report-worker", "report-ui"]
    assert on["postgres"] == {"data"}
    assert on["model-orchestrator"] == {"models"}
    assert all("data" in on[name] for name in (*WORKERS, "migrate"))


def test_only_the_api_and_the_web_app_are_published_where_the_operator_says(
    services: dict[str, dict[str, Any]],
) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"report-worker", "report-ui"}
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:") for ports in published.values() for port in ports)
    assert services["report-ui"]["profiles"] == ["ui"]


def test_the_models_are_given_none_of_the_settings(services: dict[str, dict[str, Any]]) -> None:
    assert not {"environment", "env_file"} & set(services["model-orchestrator"])


def test_everything_has_a_limit_a_health_check_and_logs_that_end(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["mem_limit"], name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    checks = {name: service.get("healthcheck") for name, service in services.items() if name != "report-ui"}
    # None is the image's own, which looks at the heartbeat.
    assert [name for name, check in checks.items() if check is None] == list(WORKERS[:-1])
    assert "pg_isready --host 127.0.0.1" in checks["postgres"]["test"][1]
    assert "/readyz" in checks["report-worker"]["test"][-1]
    assert checks["migrate"] == {"disable": True}


def refusal(folder: Path, postgres: dict[str, Any], variables: dict[str, str]) -> str | None:
    """What the database's container says in place of starting with these variables; None where it starts."""
    entry = folder / "docker-entrypoint.sh"
    entry.write_text('#!/bin/sh\necho "started: $* $DATABASE_URL$DATABASE_READ_URL"\n')
    entry.chmod(0o755)
    command = [each.replace("$$", "$") for each in postgres["entrypoint"]] + postgres["command"]
    # What compose fills in where nothing is given.
    defaults = dict.fromkeys(("DATABASE_URL", "DATABASE_READ_URL"), "")
    assert set(defaults) < set(postgres["environment"])
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **defaults, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        assert done.stdout == "started: postgres -c max_connections=200 \n"
        return None
    assert done.stdout == ""
    return done.stderr


OURS_ELSEWHERE = "postgresql://starter:starter@db.example/starter"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"POSTGRES_PASSWORD": "starter"}, "POSTGRES_PASSWORD"),
        ({"POSTGRES_PASSWORD": "better", "DATABASE_URL": OURS_ELSEWHERE}, "DATABASE_URL"),
        ({"POSTGRES_PASSWORD": "better", "DATABASE_READ_URL": OURS_ELSEWHERE}, "DATABASE_READ_URL"),
        ({"POSTGRES_PASSWORD": "better"}, None),
        ({"POSTGRES_PASSWORD": "better", "DATABASE_URL": "postgresql://starter:better@postgres/starter"}, None),
    ],
)
def test_the_database_does_not_start_on_mainnet_with_the_password_of_the_example(
    tmp_path: Path, services: dict[str, dict[str, Any]], given: dict[str, str], named: str | None
) -> None:
    postgres = services["postgres"]
    said = refusal(tmp_path, postgres, {"NETWORK": "mainnet-beta", **given})
    assert (said and said.split()[0]) == named
    assert refusal(tmp_path, postgres, {"NETWORK": "devnet", **given}) is None
    # Everything waits for it, the migration by being told so and the rest by waiting for the migration.
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_the_database_is_where_its_volume_is(services: dict[str, dict[str, Any]]) -> None:
    postgres = services["postgres"]
    assert postgres["volumes"] == [f"postgres-data:{postgres['environment']['PGDATA']}"]


def test_the_example_and_the_scaffold_agree_on_the_example_password() -> None:
    for file in (ROOT / ".local.env.example", SCAFFOLD / "node" / ".local.env.example"):
        assert "\nPOSTGRES_PASSWORD=starter\n" in text_of(file)
    assert "\nPOSTGRES_PASSWORD=\n" in text_of(SCAFFOLD / "node" / ".production.env.example")
