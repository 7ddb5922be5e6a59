"""The model host, as coordinators see it: through the library's runner, and its stub where that hides much."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pandas
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_cases import gone, until, until_now
from model_runner_client.grpc.generated.commons_pb2 import Argument, KwArgument, Variant, VariantType
from model_runner_client.grpc.generated.dynamic_subclass_pb2 import CallRequest, SetupRequest
from model_runner_client.grpc.generated.dynamic_subclass_pb2_grpc import DynamicSubclassServiceStub
from model_runner_client.model_concurrent_runners import DynamicSubclassModelConcurrentRunner
from model_runner_client.utils.datatype_transformer import encode_data

from coordinator_node.local.hosted_model import MODEL_HOST, free_port

BASE = "tracker.TrackerBase"
TRACKER = """
class TrackerBase:
    def tick(self, data):
        raise NotImplementedError
    def predict(self, subject, resolve_horizon_seconds, step_seconds):
        raise NotImplementedError
"""
MODEL = """
import os, pathlib, sys, time
import numpy, pandas
from tracker import TrackerBase

class Momentum(TrackerBase):  # a step on the way, not the model
    pass

class Model(Momentum):
    def __init__(self, seed=0, **more):
        self.ticks = seed
        self.more = more

    def tick(self, data):
        self.ticks += data["price"]

    def predict(self, subject, resolve_horizon_seconds, step_seconds, note="none"):
        return {"value": [subject, resolve_horizon_seconds, step_seconds, note]}

    def seen(self):
        return self.ticks

    def here(self):
        return os.getcwd() + " " + sys.path[0]

    def arguments(self):
        return self.more

    def give(self, name):
        return {
            "float": 1.5, "float32": numpy.float32(1.5), "int64": numpy.int64(-7), "bool": True,
            "numpy bool": numpy.bool_(False), "none": None, "text": "Zürich", "array": numpy.arange(3),
            "tuple": (1, 2), "nested": {"value": numpy.float32(0.5), numpy.int64(3): [numpy.arange(2)]},
            "frame": pandas.DataFrame({"a": [1, 2], "b": [0.5, None]}),
            "object": object(), "frame within": {"a": pandas.DataFrame()}, "huge": 1 << 80,
        }[name]

    def fail(self):
        raise ValueError("no such luck")

    def leave(self):
        sys.exit("I am off")

    def block(self, path):
        pathlib.Path(path + ".begun").touch()
        while not pathlib.Path(path).exists():
            time.sleep(0.01)
"""


@dataclass
class Host:
    """A running model host."""

    folder: Path
    port: int
    process: subprocess.Popen[str]


def write_submission(folder: Path, main: str = MODEL, tracker: str | None = TRACKER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(main)
    if tracker is not None:
        (folder / "tracker.py").write_text(tracker)
    return folder


@contextlib.contextmanager
def hosting(folder: Path) -> Iterator[Host]:
    port = free_port("127.0.0.1", other_than=0)
    command = [sys.executable, "-P", str(MODEL_HOST), "--submission", str(folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            yield Host(folder, port, process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosting(write_submission(tmp_path_factory.mktemp("submissions") / "my model")) as running:
        yield running


def argument(value: Any, kind: int = VariantType.JSON) -> Variant:
    return Variant(type=kind, value=encode_data(kind, value))


def positional(*values: Any) -> list[Argument]:
    """Arguments in the wrong order of sending; their positions say the right one."""
    numbered = [Argument(position=i, data=argument(value)) for i, value in enumerate(values, start=1)]
    return numbered[::-1]


@contextlib.asynccontextmanager
async def stub_of(host: Host) -> AsyncIterator[DynamicSubclassServiceStub]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{host.port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        yield DynamicSubclassServiceStub(channel)


def talk[T](host: Host, conversation: Callable[[DynamicSubclassServiceStub], Awaitable[T]], seed: int = 0) -> T:
    """Set up the model anew, then have the conversation."""

    async def whole() -> T:
        async with stub_of(host) as stub:
            await stub.Rest(Empty())
            status = (await set_up(stub, seed)).status
            assert (status.code, status.message) == ("SUCCESS", "")
            return await conversation(stub)

    return asyncio.run(whole())


async def set_up(stub: DynamicSubclassServiceStub, seed: int = 0, **keywords: Any) -> Any:
    named = [KwArgument(keyword=name, data=argument(value)) for name, value in keywords.items()]
    return await stub.Setup(SetupRequest(className=BASE, instanceArguments=positional(seed), instanceKwArguments=named))


async def call(stub: DynamicSubclassServiceStub, method: str, *values: Any) -> Any:
    return await stub.Call(CallRequest(methodName=method, methodArguments=positional(*values)))


async def seen(stub: DynamicSubclassServiceStub) -> int:
    return int.from_bytes((await call(stub, "seen")).methodResponse.value, "little")


@contextlib.asynccontextmanager
async def library_runner(host: Host) -> AsyncIterator[DynamicSubclassModelConcurrentRunner]:
    """The library's runner with one model, as if an orchestrator had named it."""
    runner = DynamicSubclassModelConcurrentRunner(
        timeout=30, crunch_id="test", host="127.0.0.1", port=1, base_classname=BASE, report_failure=False
    )
    runner.model_cluster.ws_client.disconnect_sync = lambda: None  # called at exit, when no event loop is left
    model = runner.create_model_runner(
        deployment_id="d", model_id="m", model_name="m", ip="127.0.0.1", port=host.port, infos={}
    )
    await runner.model_cluster.add_model_runner(model)
    try:
        yield runner
    finally:
        await model.close()


async def ask(runner: DynamicSubclassModelConcurrentRunner, method: str, *values: Any, **keywords: Any) -> Any:
    named = [KwArgument(keyword=name, data=argument(value)) for name, value in keywords.items()]
    (result,) = (await runner.call(method, (positional(*values), named))).values()
    return result


def test_the_librarys_runner_ticks_and_predicts(host: Host) -> None:
    async def scenario() -> None:
        async with library_runner(host) as runner:
            before = (await ask(runner, "seen")).result
            assert (await ask(runner, "tick", {"price": 3})).status.value == "SUCCESS"
            assert (await ask(runner, "seen")).result == before + 3
            predicted = await ask(runner, "predict", "BTC", 60, 15)
            assert predicted.result == {"value": ["BTC", 60, 15, "none"]}
            # A keyword that the method does not know is left out; one that it knows arrives.
            predicted = await ask(runner, "predict", "BTC", 60, 15, note="hello", newer=1)
            assert predicted.result == {"value": ["BTC", 60, 15, "hello"]}
            assert (await ask(runner, "fail")).status.value == "FAILED"
            assert (await ask(runner, "seen")).status.value == "SUCCESS"

    asyncio.run(scenario())


def test_results_of_every_kind_arrive(host: Host) -> None:
    expected = {
        "float": 1.5,
        "float32": 1.5,
        "int64": -7,
        "bool": 1,
        "numpy bool": 0,
        "none": None,
        "text": "Zürich",
        "array": [0, 1, 2],
        "tuple": [1, 2],
        "nested": {"value": 0.5, "3": [[0, 1]]},
    }

    async def scenario() -> None:
        async with library_runner(host) as runner:
            for name, value in expected.items():
                answer = await ask(runner, "give", name)
                assert (answer.status.value, answer.result) == ("SUCCESS", value)
            frame = (await ask(runner, "give", "frame")).result
            pandas.testing.assert_frame_equal(frame, pandas.DataFrame({"a": [1, 2], "b": [0.5, None]}))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "reason"), [("object", "object"), ("frame within", "DataFrame"), ("huge", "int too big to convert")]
)
def test_a_result_that_cannot_be_sent_is_a_failure_that_says_so(host: Host, name: str, reason: str) -> None:
    answer = talk(host, lambda stub: call(stub, "give", name))
    assert answer.status.code == "FAILED"
    assert answer.status.message.startswith("the result of give cannot be sent: ")
    assert reason in answer.status.message


@pytest.mark.parametrize(
    ("method", "code", "message"),
    [
        ("fail", "FAILED", "ValueError: no such luck"),
        ("leave", "FAILED", "SystemExit: I am off"),
        ("predict", "FAILED", "TypeError: Model.predict() missing 3 required positional arguments"),
        ("feed_update", "BAD_IMPLEMENTATION", "Model has no method 'feed_update'"),
        ("ticks", "BAD_IMPLEMENTATION", "Model has no method 'ticks'"),
        ("__init__", "BAD_IMPLEMENTATION", "Model has no method '__init__'"),
    ],
)
def test_a_call_that_fails_says_why_and_the_model_goes_on(host: Host, method: str, code: str, message: str) -> None:
    async def conversation(stub: DynamicSubclassServiceStub) -> Any:
        answer = await call(stub, method)
        assert (await call(stub, "seen")).status.code == "SUCCESS"
        return answer

    status = talk(host, conversation).status
    assert status.code == code
    assert status.message.startswith(message)


def test_the_model_runs_in_its_own_folder(host: Host) -> None:
    where = talk(host, lambda stub: call(stub, "here")).methodResponse.value.decode()
    assert where == f"{host.folder} {host.folder}"


def test_the_same_set_up_again_keeps_the_model_and_another_makes_a_new_one(host: Host) -> None:
    async def conversation(stub: DynamicSubclassServiceStub) -> None:
        await call(stub, "tick", {"price": 3})
        await set_up(stub, 10)  # a coordinator that was restarted
        assert await seen(stub) == 13
        await set_up(stub, 20)
        assert await seen(stub) == 20
        await call(stub, "tick", {"price": 3})
        await stub.Rest(Empty())
        assert (await call(stub, "seen")).status.code == "FAILED_PRECONDITION"
        await set_up(stub, 20, colour="red")
        assert json.loads((await call(stub, "arguments")).methodResponse.value) == {"colour": "red"}

    talk(host, conversation, seed=10)


def test_what_cannot_be_understood_is_an_invalid_argument(host: Host) -> None:
    async def conversation(stub: DynamicSubclassServiceStub) -> None:
        broken = [Argument(position=1, data=Variant(type=VariantType.JSON, value=b"{"))]
        answer = await stub.Call(CallRequest(methodName="tick", methodArguments=broken))
        assert answer.status.code == "INVALID_ARGUMENT"
        assert "an argument cannot be read" in answer.status.message
        answer = await stub.Setup(SetupRequest(className="TrackerBase"))
        assert answer.status.code == "INVALID_ARGUMENT"

    talk(host, conversation)


def test_a_second_call_at_once_is_refused_and_health_and_set_up_are_not(host: Host, tmp_path: Path) -> None:
    release = tmp_path / "release"

    async def conversation(stub: DynamicSubclassServiceStub) -> None:
        first = asyncio.ensure_future(call(stub, "block", str(release)))
        await until(Path(f"{release}.begun").exists)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(stub, "seen")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with grpc.aio.insecure_channel(f"127.0.0.1:{host.port}") as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING
        anew = asyncio.ensure_future(set_up(stub))
        release.touch()
        assert (await first).status.code == "SUCCESS"
        assert (await anew).status.code == "SUCCESS"
        assert (await call(stub, "seen")).status.code == "SUCCESS"

    talk(host, conversation)


SUBCLASS = "from tracker import TrackerBase\nclass {0}(TrackerBase):\n    pass\n"
BROKEN = {
    "no subclass": ("class Model: pass", TRACKER, "main.py holds no subclass of tracker.TrackerBase"),
    "several": (
        SUBCLASS.format("Slow") + SUBCLASS.format("Fast"),
        TRACKER,
        "main.py holds several subclasses of tracker.TrackerBase: main.Fast, main.Slow; leave one",
    ),
    "import": ("import no_such_package", TRACKER, "importing main.py: ModuleNotFoundError: No module named 'no_such"),
    "syntax": ("def def", TRACKER, "importing main.py: SyntaxError: "),
    "exit": ("raise SystemExit(0)", TRACKER, "importing main.py: SystemExit: 0"),
    "constructor": (
        SUBCLASS.format("Model") + "    def __init__(self): 1 / 0",
        TRACKER,
        "making Model: ZeroDivisionError: division by zero",
    ),
    "no tracker": ("", None, "importing tracker, the base class's module: ModuleNotFoundError"),
    "another tracker": ("", "class Tracker: pass", "the submission's module tracker has no class TrackerBase"),
}


# Sets up one submission after the other, as as many hosts would, and prints what the coordinator would be told.
SET_UP_EACH = f"""
import json, os, runpy, sys
host = runpy.run_path({str(MODEL_HOST)!r}, run_name="host")
from model_runner_client.grpc.generated.dynamic_subclass_pb2 import CallRequest, SetupRequest
names = set(sys.modules)
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.path.insert(0, folder)
    service = host["ModelService"]()
    status = service.Setup(SetupRequest(className={BASE!r}), None).status
    called = service.Call(CallRequest(methodName="unknown"), None).status
    print(json.dumps([status.code, status.message, called.code, called.message]))
    sys.path.remove(folder)
    for name in set(sys.modules) - names:
        del sys.modules[name]
"""


def set_up_each(folders: list[Path]) -> list[list[str]]:
    command = [sys.executable, "-P", "-B", "-c", SET_UP_EACH, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_broken_submission_is_a_bad_implementation_that_says_what_to_mend(tmp_path: Path) -> None:
    folders = [write_submission(tmp_path / name, main, tracker) for name, (main, tracker, _) in BROKEN.items()]
    answers = set_up_each(folders)
    assert len(answers) == len(BROKEN)
    for (code, message, called, _), (_, _, expected) in zip(answers, BROKEN.values(), strict=True):
        assert code == "BAD_IMPLEMENTATION"
        assert message.startswith(expected)
        assert called == "FAILED_PRECONDITION"


def test_the_model_that_main_defines_is_taken_before_those_it_imports(tmp_path: Path) -> None:
    both = write_submission(tmp_path / "both", "from examples import *\n" + SUBCLASS.format("Mine"))
    (both / "examples.py").write_text(SUBCLASS.format("Example") + SUBCLASS.format("Other"))
    imported = write_submission(tmp_path / "imported", "from mine import Mine")
    (imported / "mine.py").write_text(SUBCLASS.format("Step").replace("pass", "pass\nclass Mine(Step): pass"))
    for code, _, _, called in set_up_each([both, imported]):
        assert code == "SUCCESS"
        assert called == "Mine has no method 'unknown'"


def test_sigterm_ends_a_host_whose_model_hangs_and_its_traceback_was_printed(tmp_path: Path) -> None:
    async def scenario(host: Host) -> None:
        async with stub_of(host) as stub:
            await set_up(stub)
            await call(stub, "fail")
            hanging = asyncio.ensure_future(call(stub, "block", str(tmp_path / "never")))
            await until((tmp_path / "never.begun").exists)
            host.process.terminate()
            with pytest.raises(grpc.aio.AioRpcError):
                await hanging

    with hosting(write_submission(tmp_path / "model")) as host:
        asyncio.run(scenario(host))
        until_now(lambda: gone(host.process.pid))
        assert host.process.stderr is not None
        written = host.process.stderr.read()
    assert 'main.py", line' in written
    assert "FAILED: ValueError: no such luck" in written


def test_a_taken_port_ends_the_host(host: Host, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coordinator_node.local.model_host", "--submission", str(tmp_path)]
    talk(host, lambda stub: call(stub, "seen"))
    done = subprocess.run([*command, "--port", str(host.port)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bind" in done.stderr
