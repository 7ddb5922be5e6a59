"""The local model orchestrator: runs a folder of submissions and tells coordinators about them.

`python -m coordinator_node.local.orchestrator --submissions DIR --crunch-id ID --cache DIR` serves the protocol of the
real one at ws://HOST:PORT/ID: on connect `init` with all models, then an `update` whenever one changes. Clients may
send `report_failure`. Submissions that appear, change or vanish while it runs are taken up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

from coordinator_node.local.environments import Environments
from coordinator_node.local.hosted_model import HostedModel, ModelState
from coordinator_node.local.output import Output
from coordinator_node.local.submissions import Submission, find_submissions

NAME = "orchestrator"
POLL_SECONDS = 2.0
CLOSE_SECONDS = 1.0
EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - recognised, not bound to by default

# A model that is at fault stays stopped until it is changed; a connection may be bad without anyone's fault.
FAULTS = frozenset({"BAD_IMPLEMENTATION", "MULTIPLE_FAILED", "MULTIPLE_TIMEOUT"})
CONNECTION_FAILED = "CONNECTION_FAILED"


class Orchestrator:
    """The hosted models and the coordinators that are connected.

    `models` holds every model by its id, the stopped ones too.
    """

    def __init__(self, submissions: Path, crunch_id: str, *, host: str, cache: Path, output: Output) -> None:
        self.models: dict[str, HostedModel] = {}
        self._submissions = submissions.resolve()
        self._crunch_id = crunch_id
        self._host = host
        self._output = output
        self._environments = Environments(cache, output)
        self._starts = asyncio.Semaphore(os.cpu_count() or 1)
        self._clients: set[ServerConnection] = set()

    @contextlib.asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[int]:
        """Serve while the context lasts; yields the port, which is a free one if `port` is 0. Then all hosts end.

        Raises:
            OSError: the port is taken.
        """
        async with serve(
            self._talk, self._host, port, process_request=self._check_path, close_timeout=CLOSE_SECONDS
        ) as server:
            following = asyncio.create_task(self._follow_submissions())
            try:
                yield next(iter(server.sockets)).getsockname()[1]
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                await asyncio.gather(*(model.stop("the orchestrator ends") for model in self.models.values()))

    async def refresh(self) -> None:
        """Look at the submissions and start, replace or stop what differs from what runs."""
        try:
            found = await asyncio.to_thread(find_submissions, self._submissions)
        except OSError as error:
            self._say(f"{self._submissions} cannot be read ({error.strerror}): the models go on as they are", "yellow")
            return
        for model_id in self.models.keys() - found.keys():
            await self.models[model_id].stop("its folder or main.py is gone, or cannot be read")
            del self.models[model_id]
        for submission in found.values():
            running = self.models.get(submission.model_id)
            if running is None:
                self._run(submission)
            elif running.submission.deployment_id != submission.deployment_id:
                await running.stop("its files have changed; the new ones follow")
                self._run(submission)

    def _run(self, submission: Submission) -> None:
        address = reachable_address(self._host)
        model = HostedModel(submission, address, self._environments, self._starts, self._output, self._announce)
        self.models[submission.model_id] = model
        model.start()

    async def _follow_submissions(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception as error:  # whatever one submission's files bring about, the others are watched on
                self._say(f"a look at the submissions failed: {type(error).__name__}: {error}", "bold red")
            await asyncio.sleep(POLL_SECONDS)

    def _announce(self, model: HostedModel) -> None:
        broadcast(self._clients, _event("update", [model.describe()]))

    def _check_path(self, connection: ServerConnection, request: Request) -> Response | None:
        asked_for = unquote(urlsplit(request.path).path).strip("/")
        if asked_for == self._crunch_id:
            return None
        return connection.respond(
            HTTPStatus.NOT_FOUND, f"this orchestrator serves {self._crunch_id!r}, not {asked_for!r}\n"
        )

    async def _talk(self, client: ServerConnection) -> None:
        # Nothing is awaited between the two lines, so that no update comes before `init` or is missed after it.
        broadcast([client], _event("init", [model.describe() for model in self.models.values()]))
        self._clients.add(client)
        try:
            async for message in client:
                await self._take(message)
        finally:
            self._clients.discard(client)

    async def _take(self, message: str | bytes) -> None:
        try:
            event = json.loads(message)
            reports = event["data"] if event["event"] == "report_failure" else []
            failures = [(str(report["model_id"]), report) for report in reports]
        except (ValueError, TypeError, KeyError) as error:
            self._say(f"a message of a coordinator is ignored: {type(error).__name__}: {error}", "yellow")
            return
        for model_id, report in failures:
            await self._take_failure(model_id, report)

    async def _take_failure(self, model_id: str, report: dict[str, Any]) -> None:
        code, reason = report.get("failure_code"), report.get("failure_reason") or "no reason given"
        model = self.models.get(model_id)
        if model is None:
            self._say(f"a coordinator reports {code} of {model_id!r}, which is no model of this orchestrator", "yellow")
        elif code in FAULTS:
            await model.stop(f"a coordinator reports {code} ({reason}). It stays stopped until its files change")
        elif code == CONNECTION_FAILED and model.state is not ModelState.STOPPED:
            model.say(f"a coordinator reports {code} ({reason})", "yellow")
            model.restart()
        else:
            model.say(f"a coordinator reports {code} ({reason}): nothing is done about it", "yellow")

    def _say(self, text: str, style: str = "") -> None:
        self._output.line(NAME, text, style)


def reachable_address(host: str) -> str:
    """The address under which coordinators find what listens on `host`: of every address, this machine's own."""
    if host not in EVERY_ADDRESS:
        return host
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


def _event(name: str, models: list[dict[str, Any]]) -> str:
    return json.dumps({"event": name, "data": models})


async def run(options: argparse.Namespace, output: Output) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    orchestrator = Orchestrator(
        options.submissions, options.crunch_id, host=options.host, cache=options.cache, output=output
    )
    async with orchestrator.serving(options.port) as port:
        output.line(NAME, f"serving {options.submissions} at ws://{options.host}:{port}/{options.crunch_id}")
        await stop.wait()


def main() -> int:
    """The command; returns its exit code: 1 if the port is taken, 2 if the folder does not exist."""
    parser = argparse.ArgumentParser(description="Run a folder of submissions and tell coordinators about them.")
    parser.add_argument("--submissions", type=Path, required=True, help="the folder that holds a folder for each model")
    parser.add_argument("--crunch-id", required=True)
    parser.add_argument("--cache", type=Path, required=True, help="where environments of submissions are kept")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9091)
    options = parser.parse_args()
    if not options.submissions.is_dir():
        return _fail(2, f"the folder of submissions {options.submissions} does not exist")
    try:
        asyncio.run(run(options, Output()))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return _fail(1, f"port {options.port} of {options.host} is taken: end what uses it, or choose another --port")
    return 0


def _fail(code: int, reason: str) -> int:
    sys.stderr.write(f"{NAME}: {reason}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
