"""The orchestrator with real model hosts, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from local_cases import RecordedOutput, gone, until, until_now
from model_runner_client.model_concurrent_runners import DynamicSubclassModelConcurrentRunner
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from coordinator_node.local import orchestrator as module
from coordinator_node.local.orchestrator import Orchestrator

TRACKER = "class TrackerBase:\n    def predict(self):\n        raise NotImplementedError\n"


def write_model(submissions: Path, name: str, answer: str) -> Path:
    """A submission whose predict returns the expression `answer`."""
    folder = submissions / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tracker.py").write_text(TRACKER)
    code = "from tracker import TrackerBase\nclass Model(TrackerBase):\n    def predict(self):\n"
    (folder / "main.py").write_text(f"{code}        return {answer}\n")
    return folder


class Coordinator:
    """A client that keeps what it was told, and the state of each model as of the last word."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.models: dict[str, dict[str, Any]] = {}

    async def listen(self) -> None:
        async for message in self.socket:
            event = json.loads(message)
            self.events.append(event)
            for model in event["data"]:
                self.models[model["model_id"]] = model

    def told(self, model_id: str) -> list[tuple[str, int]]:
        """The states and ports that were told about a model, in order."""
        return [(m["state"], m["port"]) for e in self.events for m in e["data"] if m["model_id"] == model_id]

    def state(self, model_id: str) -> str | None:
        return self.models[model_id]["state"] if model_id in self.models else None

    async def report(self, model_id: str, code: str) -> None:
        failure = {"model_id": model_id, "failure_code": code, "failure_reason": "tested", "ip": "127.0.0.1"}
        await self.socket.send(json.dumps({"event": "report_failure", "data": [failure]}))


class Stage:
    """A running orchestrator and one coordinator that follows it."""

    def __init__(self, orchestrator: Orchestrator, output: RecordedOutput, port: int) -> None:
        self.orchestrator = orchestrator
        self.output = output
        self.port = port

    def pid(self, model_id: str) -> int:
        pid = self.orchestrator.models[model_id].pid
        assert pid is not None
        return pid

    @contextlib.asynccontextmanager
    async def coordinator(self) -> AsyncIterator[Coordinator]:
        async with connect(f"ws://127.0.0.1:{self.port}/btc") as client:
            coordinator = Coordinator(client)
            listening = asyncio.create_task(coordinator.listen())
            try:
                yield coordinator
            finally:
                await client.close()
                await listening


@contextlib.asynccontextmanager
async def stage(submissions: Path) -> AsyncIterator[Stage]:
    output = RecordedOutput()
    cache = submissions.parent / "cache"
    orchestrator = Orchestrator(submissions, "btc", host="127.0.0.1", cache=cache, output=output)
    async with orchestrator.serving(0) as port:
        yield Stage(orchestrator, output, port)


@pytest.fixture
def submissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    # uv takes what it installs from the disk or not at all.
    monkeypatch.setenv("UV_OFFLINE", "1")
    folder = tmp_path / "submissions"
    folder.mkdir()
    return folder


@contextlib.asynccontextmanager
async def library_runner(on: Stage) -> AsyncIterator[DynamicSubclassModelConcurrentRunner]:
    """The library's own runner, following the orchestrator."""
    runner = DynamicSubclassModelConcurrentRunner(
        timeout=30, crunch_id="btc", host="127.0.0.1", port=on.port, base_classname="tracker.TrackerBase"
    )
    client = runner.model_cluster.ws_client
    client.disconnect_sync = lambda: None  # called at exit, when no event loop is left
    await runner.init()
    listening = asyncio.create_task(runner.sync())
    try:
        yield runner
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await client.disconnect()
        for model in list(runner.model_cluster.models_run.values()):
            await model.close()


def running(coordinator: Coordinator, *model_ids: str) -> Callable[[], bool]:
    return lambda: all(coordinator.state(model_id) == "RUNNING" for model_id in model_ids)


def test_a_killed_model_comes_back_on_another_port_and_the_other_notices_nothing(submissions: Path) -> None:
    for name in ("one", "two"):
        write_model(submissions, name, "1.0")

    async def scenario() -> None:
        async with stage(submissions) as on, on.coordinator() as coordinator:
            await until(running(coordinator, "one", "two"))
            # One that connects later is told the same at once.
            async with on.coordinator() as late:
                await until(lambda: late.events)
                assert late.events[0] == {"event": "init", "data": [coordinator.models[m] for m in ("one", "two")]}
            first, other = coordinator.models["one"], on.pid("two")
            assert first["infos"] == {"model_name": "one", "cruncher_id": "one", "cruncher_name": "one"}
            before = len(coordinator.told("one"))
            os.kill(on.pid("one"), signal.SIGKILL)
            await until(lambda: coordinator.state("one") == "RECOVERING")
            await until(running(coordinator, "one"))
            again = coordinator.models["one"]
            assert again["port"] != first["port"]
            assert again["deployment_id"] == first["deployment_id"]
            assert coordinator.told("one")[before:] == [("RECOVERING", first["port"]), ("RUNNING", again["port"])]
            assert on.pid("two") == other
            assert coordinator.told("two")[-1][0] == "RUNNING"
            hosts = [on.pid("one"), on.pid("two")]
        assert all(gone(pid) for pid in hosts)
        assert "one | was ended by SIGKILL" in on.output.text

    asyncio.run(scenario())


def test_the_librarys_runner_finds_the_models_and_one_broken_costs_the_others_nothing(submissions: Path) -> None:
    write_model(submissions, "good", "{'value': 0.5}")
    broken = write_model(submissions, "broken", "1 / 0")
    (broken / "main.py").write_text("import no_such_package")

    async def scenario() -> None:
        async with stage(submissions) as on, library_runner(on) as runner:
            await until(lambda: "good" in runner.model_cluster.models_run)
            # The library reports what it cannot set up, and the orchestrator stops it.
            await until(lambda: on.orchestrator.models["broken"].state == "STOPPED")
            (result,) = (await runner.call("predict")).values()
            assert result.result == {"value": 0.5}
            assert on.orchestrator.models["good"].state == "RUNNING"
            await until(lambda: on.orchestrator.models["broken"].pid is None)
        assert "broken | BAD_IMPLEMENTATION: importing main.py: ModuleNotFoundError" in on.output.text
        assert "stopped: a coordinator reports BAD_IMPLEMENTATION" in on.output.text

    asyncio.run(scenario())


def test_a_model_at_fault_stays_stopped_until_it_changes_and_a_lost_connection_restarts_it(submissions: Path) -> None:
    folder = write_model(submissions, "model", "1.0")

    async def scenario() -> None:
        async with stage(submissions) as on, on.coordinator() as coordinator:
            await until(running(coordinator, "model"))
            first, pid = coordinator.models["model"], on.pid("model")
            for nonsense in ("{", "[]", '{"event": "report_failure"}', '{"event": "hello", "data": []}', b"\xff"):
                await coordinator.socket.send(nonsense)
            await coordinator.report("nobody", "BAD_IMPLEMENTATION")
            await coordinator.report("model", "NEW_CODE")
            await coordinator.report("model", "CONNECTION_FAILED")
            await until(lambda: coordinator.state("model") == "RECOVERING")
            await until(running(coordinator, "model"))
            second = coordinator.models["model"]
            assert second["port"] != first["port"]
            assert gone(pid)
            pid = on.pid("model")
            await coordinator.report("model", "MULTIPLE_TIMEOUT")
            await until(lambda: coordinator.state("model") == "STOPPED")
            await until(lambda: gone(pid))
            write_model(submissions, "another", "1.0")
            await until(running(coordinator, "another"))
            assert coordinator.state("model") == "STOPPED"
            write_model(submissions, "model", "2.0")
            await until(running(coordinator, "model"))
            third = coordinator.models["model"]
            assert third["model_id"] == first["model_id"]
            assert third["deployment_id"] != first["deployment_id"] == second["deployment_id"]
            pid = on.pid("model")
            shutil.rmtree(folder)
            await until(lambda: coordinator.state("model") == "STOPPED")
            await until(lambda: gone(pid) and "model" not in on.orchestrator.models)

    asyncio.run(scenario())


def make_wheel(folder: Path) -> str:
    """A package `tinysignal` on the disk, as a requirement."""
    wheel = folder / "tinysignal-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinysignal.py", "value = 7\n")
        about = "tinysignal-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tinysignal\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return f"tinysignal @ {wheel.as_uri()}"


def test_requirements_are_installed_for_their_submission_alone_and_a_failing_install_costs_no_other(
    submissions: Path, tmp_path: Path
) -> None:
    answer = "[__import__('tinysignal').value, __import__('sys').prefix]"
    equipped = write_model(submissions, "equipped", answer)
    (equipped / "requirements.txt").write_text(make_wheel(tmp_path) + "\n")
    lacking = write_model(submissions, "lacking", "1.0")
    (lacking / "requirements.txt").write_text("./no-such-package.whl\n")

    async def scenario() -> None:
        async with stage(submissions) as on, on.coordinator() as coordinator:
            await until(running(coordinator, "equipped"))
            await until(lambda: coordinator.state("lacking") == "STOPPED")
            line = next(line for line in on.output.lines if "lacking" in line and "stopped" in line)
            assert "requirements.txt could not be installed: uv pip exited with code" in line
            assert "no-such-package.whl" in on.output.text
            host = psutil.Process(on.pid("equipped"))
            environment = Path(host.cmdline()[0]).parent.parent
            assert environment.parent == tmp_path / "cache"
            assert list(environment.glob("lib/*/site-packages/tinysignal.py"))
            async with library_runner(on) as runner:
                await until(lambda: runner.model_cluster.models_run)
                (result,) = (await runner.call("predict")).values()
                assert result.result == [7, str(environment)]
            # Started again, it is found ready.
            made = (environment / "complete").stat().st_mtime_ns
            host.kill()
            await until(lambda: coordinator.state("equipped") == "RECOVERING")
            await until(running(coordinator, "equipped"))
            assert (environment / "complete").stat().st_mtime_ns == made
            assert on.output.text.count("equipped | installing") == 1

    asyncio.run(scenario())


def test_another_competition_is_refused_by_name(submissions: Path) -> None:
    async def scenario() -> None:
        async with stage(submissions) as on:
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{on.port}/eth")
            assert refused.value.response.status_code == 404
            assert b"serves 'btc', not 'eth'" in (refused.value.response.body or b"")

    asyncio.run(scenario())


def command(submissions: Path, *more: str) -> list[str]:
    cache = submissions.parent / "cache"
    start = [sys.executable, "-u", "-m", "coordinator_node.local.orchestrator", "--submissions", str(submissions)]
    return [*start, "--crunch-id", "btc", "--cache", str(cache), *more]


@pytest.mark.parametrize(
    "end",
    [
        signal.SIGTERM,
        pytest.param(
            signal.SIGKILL, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux kills children so")
        ),
    ],
)
def test_the_end_of_the_process_is_the_end_of_its_hosts(submissions: Path, end: signal.Signals) -> None:
    write_model(submissions, "model", "1.0")
    with subprocess.Popen(command(submissions, "--port", "0"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "running at" in line:
                break
        hosts = psutil.Process(process.pid).children(recursive=True)
        assert hosts
        process.send_signal(end)
        assert process.wait() == (0 if end is signal.SIGTERM else -end)
    until_now(lambda: all(gone(host.pid) for host in hosts))


def test_a_taken_port_and_a_missing_folder_are_named(submissions: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(command(submissions, "--port", str(port)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    message = f"port {port} of 127.0.0.1 is taken: end what uses it, or choose another --port"
    assert done.stderr == f"orchestrator: {message}\n"
    done = subprocess.run(command(submissions / "missing"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"the folder of submissions {submissions / 'missing'} does not exist" in done.stderr
