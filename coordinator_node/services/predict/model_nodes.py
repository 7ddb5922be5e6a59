"""The model nodes: what the orchestrator says is there, connected through `model-runner-client`.

The library's own call path is not used: it drops what a raising model said, skips calls by itself, and handles the
orchestrator's events one after another, so that one bad model delays all. Its WebSocket client, connections, Setup,
credentials and stubs are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import websockets
from model_runner_client.grpc.generated.commons_pb2 import Argument, Variant, VariantType
from model_runner_client.grpc.generated.dynamic_subclass_pb2 import CallRequest
from model_runner_client.model_cluster import ModelCluster
from model_runner_client.model_runners import DynamicSubclassModelRunner
from model_runner_client.security.credentials import SecureCredentials
from model_runner_client.security.gateway_credentials import GatewayCredentials
from model_runner_client.security.wallet_gelegation import AuthError
from model_runner_client.utils.datatype_transformer import decode_data, encode_data
from model_runner_client.websocket_client import WebsocketClient
from websockets.exceptions import WebSocketException

from coordinator_node.config.settings import Settings
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.json_values import reason_of
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.predict.answers import MAX_ANSWER_BYTES, SHOWN_CHARACTERS, shorten
from coordinator_node.services.predict.frames import read_frame

log = get_logger(__name__)

# The code of a call whose model node could not prove whose it is.
AUTHENTICATION = "AUTHENTICATION"

RETRY_SECONDS = 1.0
CLOSE_SECONDS = 1.0
# While the orchestrator is away, every so manyth try is logged.
SAY_EVERY = 30
# The first event names every model there is.
MAX_EVENT_BYTES = 64 * 1024 * 1024


class ModelCallError(Exception):
    """A call that gave no answer. `code` is the runner's status.

    `timed_out` tells a slow model from a failing one; `busy` says that the node refused the call, because it still
    works on an earlier one whose answer nobody waits for any more.
    """

    def __init__(self, reason: str, *, code: str = "FAILED", timed_out: bool = False, busy: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.timed_out = timed_out
        self.busy = busy


@dataclass(frozen=True)
class Call:
    """A method with its arguments, encoded once for however many models."""

    method: str
    arguments: tuple[Argument, ...]


def make_call(method: str, arguments: list[tuple[str, Any]]) -> Call:
    """A call from (type, value) pairs; types are those of CallMethodArg. A value of bytes is JSON encoded already."""
    encoded = [Argument(position=i, data=_variant(kind, value)) for i, (kind, value) in enumerate(arguments, start=1)]
    return Call(method, tuple(encoded))


def _variant(kind: str, value: Any) -> Variant:
    if kind == "JSON":
        return Variant(type=VariantType.JSON, value=value if isinstance(value, bytes) else _json(value))
    if kind == "INT":
        return Variant(type=VariantType.INT, value=encode_data(VariantType.INT, int(value)))
    if kind == "FLOAT":
        return Variant(type=VariantType.DOUBLE, value=encode_data(VariantType.DOUBLE, float(value)))
    return Variant(type=VariantType.STRING, value=encode_data(VariantType.STRING, str(value)))


def _json(value: Any) -> bytes:
    encoded: bytes = encode_data(VariantType.JSON, value)
    return encoded


async def call_model(runner: DynamicSubclassModelRunner, call: Call, timeout_seconds: float) -> Any:
    """What the model answered, decoded.

    Raises:
        ModelCallError: it raised, was not reached, did not answer in time, or sent what cannot be read.
    """
    request = CallRequest(methodName=call.method, methodArguments=call.arguments)
    try:
        response = await runner.grpc_stub.Call(request, timeout=timeout_seconds)
    except grpc.aio.AioRpcError as error:
        raise _failed_call(error.code(), str(error.details())) from None
    except grpc.aio.UsageError:  # its connection was closed before its lane, as when its shard goes to another worker
        raise ModelCallError("the model went away", code="GONE") from None
    except AuthError as error:
        raise ModelCallError(f"authentication failed: {error}", code=AUTHENTICATION) from None
    status = response.status
    if status.code != "SUCCESS":
        raise ModelCallError(f"{status.code}: {status.message}".rstrip(": "), code=status.code)
    value = response.methodResponse
    if len(value.value) > MAX_ANSWER_BYTES:
        sent = shorten(value.value[: SHOWN_CHARACTERS // 2])
        raise ModelCallError(f"answer of {len(value.value)} bytes is larger than {MAX_ANSWER_BYTES}: begins {sent}")
    try:
        return read_frame(value.value) if value.type == VariantType.PARQUET else decode_data(value.value, value.type)
    except Exception as error:  # whatever a decoder makes of a stranger's bytes costs this answer only
        raise ModelCallError(f"answer cannot be decoded: {type(error).__name__}: {error}") from error


def _failed_call(code: grpc.StatusCode, details: str) -> ModelCallError:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ModelCallError("timeout", code=code.name, timed_out=True)
    # gRPC says the same of a message that is too large for it. The library, too, counts a busy node as a timeout.
    busy = code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" not in details
    return ModelCallError(f"{code.name}: {details}", code=code.name, timed_out=busy, busy=busy)


class _Orchestrator(WebsocketClient):  # type: ignore[misc]  # the library has no types
    """The library's WebSocket client, which waits for the orchestrator for as long as it takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.retry_interval = RETRY_SECONDS

    def __del__(self) -> None:
        """Do nothing: the library's destructor would run an event loop after the last one has ended."""

    async def connect(self) -> None:
        address = f"ws://{self.host}:{self.port}/{self.crunch_id}"
        failures = 0
        while True:
            try:
                self.websocket = await websockets.connect(address, max_size=MAX_EVENT_BYTES)
            except (OSError, TimeoutError, WebSocketException) as error:
                if failures % SAY_EVERY == 0:
                    log.warning("waiting for the model orchestrator", address=address, reason=str(error))
                failures += 1
                await asyncio.sleep(RETRY_SECONDS)
            else:
                log.info("connected to the model orchestrator", address=address)
                return


class _Cluster(ModelCluster):  # type: ignore[misc]  # the library has no types
    """The library's registry of connected models; each event and each model is taken up beside the others."""

    def __init__(self, settings: Settings, make_runner: Callable[..., Any], changed: Callable[[], None]) -> None:
        # The base class's constructor would make a WebSocket client of its own.
        self.crunch_id = settings.crunch_id
        self.models_run: dict[str, DynamicSubclassModelRunner] = {}
        self.pending_model_runs: dict[str, DynamicSubclassModelRunner] = {}
        self.model_factory = make_runner
        self.report_failure = settings.model_runner_report_failure
        self.ws_client = _Orchestrator(
            settings.model_runner_node_host,
            settings.model_runner_node_port,
            settings.crunch_id,
            event_handler=self.handle_event,
        )
        # What the orchestrator last said of each model; None before it has said anything.
        self.described: dict[str, dict[str, Any]] | None = None
        # How many events of each model are being taken up.
        self.connecting: Counter[str] = Counter()
        self._order: dict[str, asyncio.Lock] = {}
        self._wanted: Callable[[str], bool] = lambda _: False
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle_event(self, event_type: str, data: list[dict[str, Any]]) -> None:
        """Take up what the orchestrator says; `init` names every model there is, `update` those that changed."""
        if event_type not in ("init", "update"):
            log.warning("unknown event of the orchestrator", event_type=event_type)
            return
        said = {str(model["model_id"]): model for model in data}
        self.described = said if event_type == "init" else {**(self.described or {}), **said}
        self._drop(lambda model_id: model_id not in (self.described or {}))
        self._take_up(said)

    def choose(self, wanted: Callable[[str], bool]) -> None:
        """Connect to these models and no others."""
        self._wanted = wanted
        self._drop(lambda model_id: not wanted(model_id))
        connected = self.models_run.keys() | self.pending_model_runs.keys()
        self._take_up({i: model for i, model in (self.described or {}).items() if i not in connected})

    def _take_up(self, models: dict[str, dict[str, Any]]) -> None:
        for model_id, model in models.items():
            if self._wanted(model_id):
                self.connecting[model_id] += 1  # at once, so that nobody takes the models for settled before it begins
                self.spawn(self._connect(model_id, model))

    async def _connect(self, model_id: str, model: dict[str, Any]) -> None:
        try:
            # One after another for each model: the library takes a RUNNING for a mere update of infos while the
            # STOPPED before it has not been carried out.
            async with self._order.setdefault(model_id, asyncio.Lock()):
                await self.update_model_runs([model])
        finally:
            self.connecting[model_id] -= 1

    def _drop(self, unwanted: Callable[[str], bool]) -> None:
        for model_id, runner in [*self.models_run.items(), *self.pending_model_runs.items()]:
            if unwanted(model_id):
                self.spawn(self.remove_model_runner(runner))

    def spawn(self, work: Any) -> None:
        """Run beside everything else; a failure is logged and costs one model."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a model could not be taken up", reason=f"{type(error).__name__}: {error}")
        self._changed()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        runners = [*self.models_run.values(), *self.pending_model_runs.values()]
        with contextlib.suppress(TimeoutError):  # an orchestrator that does not answer must not hold up the end
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(runner.close() for runner in runners), return_exceptions=True)
                await self.ws_client.disconnect()


class ModelNodes:
    """The models that can be called now. `changed` is called whenever that may have become others."""

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        self._base_classname = settings.model_base_classname
        self._credentials = model_credentials(settings)
        self._cluster = _Cluster(settings, self._make_runner, changed)

    async def follow(self) -> None:
        """Follow the orchestrator for ever; it may be away now or later."""
        await self._cluster.ws_client.listen()

    def choose(self, wanted: Callable[[str], bool]) -> None:
        """Connect to the models that this worker calls, and to no others."""
        self._cluster.choose(wanted)

    def settled(self, wanted: Callable[[str], bool]) -> bool:
        """Whether the orchestrator has named the models, and none of those wanted is still being connected."""
        return self.named and not any(count and wanted(i) for i, count in self._cluster.connecting.items())

    @property
    def named(self) -> bool:
        """Whether the orchestrator has said yet which models there are."""
        return self._cluster.described is not None

    def running(self) -> dict[str, DynamicSubclassModelRunner]:
        """The connected models by id."""
        return dict(self._cluster.models_run)

    def report_failure(self, runner: DynamicSubclassModelRunner, code: str, reason: str) -> None:
        """Tell the orchestrator that a model is not to be called any more, if it is still the one that runs."""
        if self._cluster.models_run.get(runner.model_id) is runner:
            self._cluster.spawn(self._cluster.process_failure(runner, code, reason[:500]))

    def reconnect(self, runner: DynamicSubclassModelRunner) -> None:
        """Set a model up anew, which has lost its instance though it runs at the same address."""
        if self._cluster.models_run.get(runner.model_id) is runner:
            self._cluster.spawn(self._cluster.reconnect_model_runner(runner))

    async def close(self) -> None:
        """Disconnect from everything."""
        await self._cluster.close()

    def _make_runner(self, **model: Any) -> DynamicSubclassModelRunner:
        return DynamicSubclassModelRunner(self._base_classname, **self._credentials, **model)


def model_credentials(settings: Settings) -> dict[str, Any]:
    """What model nodes are shown, as the library's runner takes it: of GATEWAY_CERT_DIR, SECURE_CERT_DIR, or nothing.

    Raises:
        ConfigurationError: the folder does not hold what it must.
    """
    name = "GATEWAY_CERT_DIR" if settings.gateway_cert_dir else "SECURE_CERT_DIR"
    folder = Path(settings.gateway_cert_dir or settings.secure_cert_dir)
    try:
        if settings.gateway_cert_dir:
            return {"gateway_credentials": GatewayCredentials.from_pem((folder / "key.pem").read_bytes())}
        if settings.secure_cert_dir:
            return {"secure_credentials": SecureCredentials.from_directory(folder)}
    except Exception as error:  # files that are none: what is raised is for the libraries that read them to choose
        raise ConfigurationError(f"{name}: {folder} cannot be used: {reason_of(error)}") from error
    return {}
