"""One model behind gRPC: `python model_host.py --submission DIR --port N`, run by its path or as a module.

Serves `dynamic_subclass.DynamicSubclassService` and `grpc.health.v1` for the submission in DIR (`main.py`, the module
of the base class, and what else it brings), as a real model node does. The orchestrator runs this file with the
submission's own interpreter, so it imports nothing of the engine: only gRPC, `model_runner_client` and the stdlib.

The model's code runs on one thread that is kept, one call at a time: a second call meanwhile is refused with
RESOURCE_EXHAUSTED. A coordinator that connects anew sets the model up again; asked for the same as before, the host
keeps the instance, so that a restarted coordinator does not cost the model what it has learned.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import os
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from model_runner_client.grpc.generated.commons_pb2 import Status, Variant
from model_runner_client.grpc.generated.dynamic_subclass_pb2 import CallResponse, RestResponse, SetupResponse
from model_runner_client.grpc.generated.dynamic_subclass_pb2_grpc import add_DynamicSubclassServiceServicer_to_server
from model_runner_client.utils.datatype_transformer import decode_data, detect_data_type, encode_data

SUCCESS = "SUCCESS"
FAILED = "FAILED"
INVALID_ARGUMENT = "INVALID_ARGUMENT"
FAILED_PRECONDITION = "FAILED_PRECONDITION"
BAD_IMPLEMENTATION = "BAD_IMPLEMENTATION"

# One call and one set-up at a time use a thread; the others answer health checks and refuse what comes too early.
GRPC_THREADS = 8
TURN_POLL_SECONDS = 0.2
SERVER_OPTIONS = (
    # Without this, two hosts could listen on one port and share its calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class RefusedError(Exception):
    """A request that is answered with a status other than SUCCESS; the message is for the one who can mend it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def failures_of_the_model(code: str, what: str = "") -> Iterator[None]:
    """Turn whatever the submission's code raises into a refusal, with its traceback on stderr."""
    try:
        yield
    except RefusedError:
        raise
    except (Exception, SystemExit) as error:  # the submission's code may raise anything, and may call sys.exit
        traceback.print_exc()
        raise RefusedError(code, f"{what}{type(error).__name__}: {error}") from error


def find_base_class(class_name: str) -> type:
    """The class that `class_name` (module path, dot, class name) names, from the submission or what it installed."""
    module_name, _, name = class_name.rpartition(".")
    if not module_name or not name:
        raise RefusedError(INVALID_ARGUMENT, f"{class_name!r} is not a module and a class, as in 'tracker.TrackerBase'")
    with failures_of_the_model(BAD_IMPLEMENTATION, f"importing {module_name}, the base class's module: "):
        module = importlib.import_module(module_name)
    base = getattr(module, name, None)
    if not isinstance(base, type):
        raise RefusedError(BAD_IMPLEMENTATION, f"the submission's module {module_name} has no class {name}")
    return base


def most_derived(classes: Iterable[type], base: type) -> list[type]:
    """Those of the classes that derive from `base` and that no other of them derives from."""
    models = {c for c in classes if isinstance(c, type) and issubclass(c, base) and c is not base}
    return sorted(
        (c for c in models if not any(other is not c and issubclass(other, c) for other in models)),
        key=lambda c: (c.__module__, c.__qualname__),
    )


def find_model_class(class_name: str) -> type:
    """The submission's one model: the most derived subclass of the base class that main.py defines.

    Where main.py defines none, what it imports counts.

    Raises:
        RefusedError: BAD_IMPLEMENTATION if there is none, or several among which nobody can choose.
    """
    base = find_base_class(class_name)
    with failures_of_the_model(BAD_IMPLEMENTATION, "importing main.py: "):
        main = importlib.import_module("main")
    names = list(vars(main).values())
    defined_here = [value for value in names if getattr(value, "__module__", None) == main.__name__]
    found = most_derived(defined_here, base) or most_derived(names, base)
    if not found:
        raise RefusedError(BAD_IMPLEMENTATION, f"main.py holds no subclass of {class_name}")
    if len(found) > 1:
        candidates = ", ".join(f"{c.__module__}.{c.__qualname__}" for c in found)
        raise RefusedError(
            BAD_IMPLEMENTATION, f"main.py holds several subclasses of {class_name}: {candidates}; leave one"
        )
    return found[0]


def decode_arguments(arguments: Sequence[Any], keywords: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The values of a request's arguments, in the order of their positions, and of its keyword arguments."""
    try:
        values = [_decode(argument.data) for argument in sorted(arguments, key=lambda argument: argument.position)]
        return values, {argument.keyword: _decode(argument.data) for argument in keywords}
    except (ValueError, struct.error, OSError, ImportError) as error:
        raise RefusedError(INVALID_ARGUMENT, f"an argument cannot be read: {error}") from error


def _decode(variant: Any) -> Any:
    return decode_data(variant.value, variant.type)


def accepted(target: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Those keyword arguments that `target` takes: coordinators may send newer ones than a model knows."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):  # classes and functions of C may not tell
        return dict(keywords)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(keywords)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in keywords.items() if name in named}


def plain(value: Any) -> Any:
    """The value with numpy's scalars and arrays, and tuples, as what JSON knows; all else is left as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def encode_result(method_name: str, result: Any) -> Any:
    """The result as a Variant.

    Raises:
        RefusedError: FAILED, if it is of a type that cannot be sent, or holds one.
    """
    try:
        value = plain(result)
        kind = detect_data_type(value)
        return Variant(type=kind, value=encode_data(kind, value))
    except Exception as error:  # a result may be anything, and so may be what encoding it raises
        raise RefusedError(FAILED, f"the result of {method_name} cannot be sent: {error}") from error


class ModelService:
    """The gRPC service of one model. Names of methods are the protocol's."""

    def __init__(self) -> None:
        self._model: Any = None
        self._set_up_as: bytes | None = None
        self._busy = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def Setup(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the protocol's name
        """Make the model, or keep it if it was made by the same request; waits for a call that is under way."""
        while not self._busy.acquire(timeout=TURN_POLL_SECONDS):
            if not context.is_active():
                return SetupResponse()
        try:
            return SetupResponse(status=self._thread.submit(self._set_up, request).result())
        finally:
            self._busy.release()

    def Call(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the protocol's name
        """Call a method of the model and send its result."""
        if not self._busy.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the model is still busy with another call")
        try:
            return self._thread.submit(self._call, request).result()
        finally:
            self._busy.release()

    def Rest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the protocol's name
        """Forget the model: the next Setup makes a new one."""
        self._thread.submit(self._forget).result()
        return RestResponse(status=Status(code=SUCCESS))

    def _forget(self) -> None:
        self._model = self._set_up_as = None

    def _set_up(self, request: Any) -> Any:
        wanted = request.SerializeToString(deterministic=True)
        if self._set_up_as == wanted:
            return Status(code=SUCCESS)
        self._forget()
        try:
            model_class = find_model_class(request.className)
            values, keywords = decode_arguments(request.instanceArguments, request.instanceKwArguments)
            with failures_of_the_model(BAD_IMPLEMENTATION, f"making {model_class.__name__}: "):
                self._model = model_class(*values, **accepted(model_class, keywords))
        except RefusedError as refused:
            return refusal(refused)
        self._set_up_as = wanted
        return Status(code=SUCCESS)

    def _call(self, request: Any) -> Any:
        try:
            method = self._method(request.methodName)
            values, keywords = decode_arguments(request.methodArguments, request.methodKwArguments)
            with failures_of_the_model(FAILED):
                result = method(*values, **accepted(method, keywords))
            answer = encode_result(request.methodName, result)
        except RefusedError as refused:
            return CallResponse(status=refusal(refused))
        return CallResponse(status=Status(code=SUCCESS), methodResponse=answer)

    def _method(self, name: str) -> Callable[..., Any]:
        if self._model is None:
            raise RefusedError(FAILED_PRECONDITION, "the model is not set up: call Setup before Call")
        method: Callable[..., Any] | None = getattr(self._model, name, None)
        if name.startswith("_") or not callable(method):
            raise RefusedError(BAD_IMPLEMENTATION, f"{type(self._model).__name__} has no method {name!r}")
        return method


def refusal(refused: RefusedError) -> Any:
    """The status of a refused request; said on stderr too, because coordinators may drop a status's message."""
    print(f"{refused.code}: {refused}", file=sys.stderr, flush=True)  # noqa: T201 - goes to the model's output
    return Status(code=refused.code, message=str(refused))


def start_server(host: str, port: int) -> grpc.Server:
    """Serve the model and health checks at host and port.

    Raises:
        RuntimeError: the port is taken.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=GRPC_THREADS), options=SERVER_OPTIONS)
    add_DynamicSubclassServiceServicer_to_server(ModelService(), server)
    health_service = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    health_service.set("", health_pb2.HealthCheckResponse.SERVING)
    return server


def main() -> None:
    """Serve until SIGTERM, which ends the process at once, whatever the model is doing."""
    parser = argparse.ArgumentParser(description="Serve the model of one submission over gRPC.")
    parser.add_argument("--submission", type=Path, required=True, help="the folder that holds main.py")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    folder = options.submission.resolve()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True  # the folder is the player's
    start_server(options.host, options.port).wait_for_termination()


if __name__ == "__main__":
    main()
