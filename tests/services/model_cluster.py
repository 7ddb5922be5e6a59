"""A cluster of model nodes in this process: a real WebSocket orchestrator and real gRPC servers on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from model_runner_client.grpc.generated.commons_pb2 import Status, Variant
from model_runner_client.grpc.generated.dynamic_subclass_pb2 import CallResponse, SetupResponse
from model_runner_client.grpc.generated.dynamic_subclass_pb2_grpc import (
    DynamicSubclassServiceServicer,
    add_DynamicSubclassServiceServicer_to_server,
)
from model_runner_client.utils.datatype_transformer import decode_data, detect_data_type, encode_data
from websockets.asyncio.server import ServerConnection, serve

Behaviour = Callable[[str, list[Any]], Awaitable[Any]]


class ModelRaisedError(Exception):
    """What a model of a test raises on purpose; the node answers with its text, and its code."""

    code = "FAILED"


class NoSuchMethodError(ModelRaisedError):
    """What a node says that has no such method."""

    code = "BAD_IMPLEMENTATION"


async def steady(method: str, arguments: list[Any]) -> Any:
    """The healthy model: answers at once."""
    return {"value": 0.5} if method == "predict" else None


@dataclass
class ModelNode(DynamicSubclassServiceServicer):
    """One model behind gRPC: serves one call at a time and refuses a second, as real nodes do."""

    model_id: str
    behaviour: Behaviour = steady
    calls: list[tuple[str, list[Any]]] = field(default_factory=list)
    # The base classes that it was to make an instance of.
    setups: list[str] = field(default_factory=list)
    keep_calls: bool = True
    # Whether it works on a call to its end, as real nodes do, though whoever asked has given up.
    stubborn: bool = False
    credentials: grpc.ServerCredentials | None = None
    # What the node proves itself with: metadata that it sends before each answer.
    proof: tuple[tuple[str, str], ...] = ()
    # The metadata that callers sent.
    received: list[dict[str, str]] = field(default_factory=list)
    wallet: str = ""
    # What the orchestrator says of it besides; strangers write some of that.
    infos: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    _busy: bool = False
    _server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        add_DynamicSubclassServiceServicer_to_server(self, self._server)
        servicer = health.aio.HealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        if self.credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", self.credentials)
        await self._server.start()

    async def stop(self) -> None:
        if self._server:
            await self._server.stop(None)

    async def Setup(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        await self._prove(context)
        self.setups.append(request.className)
        return SetupResponse(status=Status(code="SUCCESS"))

    async def _prove(self, context: Any) -> None:
        if self.credentials is not None:
            self.received.append({key: value for key, value in context.invocation_metadata()})
            await context.send_initial_metadata(self.proof)

    async def Call(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        if self._busy:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "one call at a time")
        await self._prove(context)
        self._busy = True
        working: asyncio.Future[Any] | None = None
        try:
            arguments: list[Any] = []
            if self.keep_calls:
                arguments = [decode_data(a.data.value, a.data.type) for a in request.methodArguments]
                self.calls.append((request.methodName, arguments))
            working = asyncio.ensure_future(self.behaviour(request.methodName, arguments))
            answer = await (asyncio.shield(working) if self.stubborn else working)
        except ModelRaisedError as error:
            return CallResponse(status=Status(code=error.code, message=str(error)))
        finally:
            if working is None or working.done():
                self._busy = False
            else:
                working.add_done_callback(lambda _: setattr(self, "_busy", False))
        kind = detect_data_type(answer)
        return CallResponse(
            status=Status(code="SUCCESS"), methodResponse=Variant(type=kind, value=encode_data(kind, answer))
        )

    def predicts(self) -> list[list[Any]]:
        return [arguments for method, arguments in self.calls if method == "predict"]

    def description(self, state: str = "RUNNING") -> dict[str, Any]:
        return {
            "deployment_id": f"deployment-{self.model_id}",
            "model_id": self.model_id,
            "state": state,
            "ip": "127.0.0.1",
            "port": self.port,
            "infos": {
                "model_name": f"name of {self.model_id}",
                "cruncher_id": f"cruncher-{self.model_id}",
                "cruncher_name": f"player of {self.model_id}",
                "cruncher_wallet_pubkey": self.wallet or f"wallet-{self.model_id}",
                "cruncher_hotkey": f"hotkey-{self.model_id}",
                **self.infos,
            },
        }


class ModelCluster:
    """An orchestrator with its model nodes; use it as an async context manager."""

    def __init__(self, **behaviours: Behaviour) -> None:
        self.nodes = {name: ModelNode(name, behaviour) for name, behaviour in behaviours.items()}
        self.reports: list[dict[str, Any]] = []
        self.port = 0
        self._clients: set[ServerConnection] = set()

    async def __aenter__(self) -> ModelCluster:
        await asyncio.gather(*(node.start() for node in self.nodes.values()))
        await self.open_orchestrator()
        return self

    async def open_orchestrator(self) -> None:
        """Serve, at the same address as before if it has served before."""
        self._server = await serve(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close_orchestrator(self) -> None:
        """Go away, as an orchestrator does that is deployed anew; the model nodes stay."""
        self._server.close()
        await self._server.wait_closed()

    async def __aexit__(self, *error: object) -> None:
        await self.close_orchestrator()
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))

    async def update(self, model_id: str, *states: str) -> None:
        """Send the states one after another, without a pause."""
        for state in states:
            message = json.dumps({"event": "update", "data": [self.nodes[model_id].description(state)]})
            await asyncio.gather(*(client.send(message) for client in self._clients))

    async def _serve(self, client: ServerConnection) -> None:
        self._clients.add(client)
        data = [node.description() for node in self.nodes.values()]
        await client.send(json.dumps({"event": "init", "data": data}))
        try:
            async for message in client:
                self.reports += json.loads(message)["data"]
        finally:
            self._clients.discard(client)
