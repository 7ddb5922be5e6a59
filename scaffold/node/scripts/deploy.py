"""Builds and starts the containers of docker-compose.yml in this folder, waits until all are healthy, prints the URLs.

What is given besides goes to `docker compose up`, such as `--scale score-worker=3`. A container that does not become
healthy ends it with 1, and with that container's last lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

COMPOSE = ["docker", "compose", "--env-file", ".local.env"]
OWN_ORCHESTRATOR = "model-orchestrator"
OWN_DATABASE = "postgres"
WAIT_SECONDS = 300
LAST_LINES = "20"
EVERY_ADDRESS = ("0.0.0.0", "::", "[::]")  # noqa: S104 - recognised, not bound to


def variables() -> dict[str, str]:
    """What docker-compose.yml is filled in with: the terminal's variables over those of .local.env."""
    shown = subprocess.run([*COMPOSE, "config", "--environment"], check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def adjusted(given: dict[str, str]) -> dict[str, str]:
    """What follows from them: who runs the models, whether there is a web app, and what workers have to reach."""
    own_models = given.get("MODEL_RUNNER_NODE_HOST", "") in ("", OWN_ORCHESTRATOR)
    profiles = ["models"] if own_models else []
    profiles += ["ui"] if given.get("REPORT_UI_BUILD_CONTEXT") else []
    profiles += [name for name in given.get("COMPOSE_PROFILES", "").split(",") if name and name not in profiles]
    # Only through that network does a worker reach an orchestrator elsewhere.
    models = (given.get("MODELS_INTERNAL") or "true") if own_models else "false"
    # The same with databases.
    data = (given.get("DATA_INTERNAL") or "true") if databases(given) <= {OWN_DATABASE} else "false"
    return {"COMPOSE_PROFILES": ",".join(profiles), "MODELS_INTERNAL": models, "DATA_INTERNAL": data}


def databases(given: dict[str, str]) -> set[str]:
    """The hosts of the database and, where there is one, of its replica."""
    addresses = [url for name in ("DATABASE_URL", "DATABASE_READ_URL") if (url := given.get(name))]
    # scheme://user:password@HOST:port/database
    hosts = {url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0] for url in addresses}
    return hosts if given.get("DATABASE_URL") else hosts | {given.get("POSTGRES_HOST") or OWN_DATABASE}


def urls(given: dict[str, str]) -> list[str]:
    """Where what is published answers, a line each."""
    address = given.get("PUBLISH_ADDRESS") or "127.0.0.1"
    host = "127.0.0.1" if address in EVERY_ADDRESS else address
    api = f"http://{host}:{given.get('REPORT_API_PORT') or 8000}"
    lines = [f"report API   {api}", f"its pages    {api}/docs", f"readiness    {api}/readyz"]
    if given.get("REPORT_UI_BUILD_CONTEXT"):
        lines.append(f"web app      http://{host}:{given.get('REPORT_UI_PORT') or 3000}")
    return lines


def unhealthy(environment: dict[str, str]) -> list[str]:
    """The services of which a container is not as it should be."""
    shown = subprocess.run(
        [*COMPOSE, "ps", "--all", "--format", "json"], env=environment, check=False, capture_output=True, text=True
    ).stdout
    containers = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    return sorted({each["Service"] for each in containers if not _as_it_should_be(each)})


def _as_it_should_be(container: dict[str, object]) -> bool:
    if container["State"] == "exited":
        return container["ExitCode"] == 0
    return container["State"] == "running" and container["Health"] in ("", "healthy")


def main(arguments: list[str]) -> int:
    """Deploy; returns the exit code."""
    try:
        given = variables()
    except FileNotFoundError:
        print("docker is not installed, or not on PATH", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(error.stderr.strip() or "docker compose does not work here", file=sys.stderr)
        return 1
    environment = {**os.environ, **adjusted(given)}
    up = ["up", "--detach", "--wait", "--wait-timeout", str(WAIT_SECONDS), "--remove-orphans", *arguments]
    for step in (["build"], up):
        code = subprocess.run([*COMPOSE, *step], env=environment, check=False).returncode
        if code:
            print(f"not deployed: docker compose {step[0]} ended with {code}", file=sys.stderr)
            if services := unhealthy(environment):
                print(f"not healthy: {', '.join(services)}; their last lines:", file=sys.stderr)
                subprocess.run([*COMPOSE, "logs", "--tail", LAST_LINES, *services], env=environment, check=False)
            return 1
    print("\n".join(urls(given)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
