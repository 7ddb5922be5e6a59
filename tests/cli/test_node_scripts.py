"""The scripts of a workspace's node, against an API that asks for a key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from coordinator_node.cli.init import Layout, create_workspace

SCORED = {"model_id": "1", "score_value": 0.5, "score_failed": False, "score_failed_reason": None}
ANSWERS: dict[str, Any] = {
    "/reports/models": [{"model_id": "1", "model_name": "one", "cruncher_name": "who"}],
    "/reports/predictions": [SCORED, {**SCORED, "score_value": 0.7}],
    "/reports/leaderboard": [{"model_id": "1"}],
    "/reports/checkpoints": [{"id": "c", "period_end": "2026-01-01T00:00:00Z"}],
}


@pytest.fixture
def url() -> Iterator[str]:
    """An API that tells everything to whoever knows the key `se cret`, and nothing to others."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("X-API-Key") == "se cret"
            self.send_response(200 if known else 401)
            self.end_headers()
            answer = ANSWERS[self.path.partition("?")[0]] if known else {"detail": "an API key is needed"}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("script", "said"), [("verify_e2e", "verified"), ("check_models", "one (who): 2 good")])
def test_the_key_is_the_terminals_or_that_of_the_settings(tmp_path: Path, url: str, script: str, said: str) -> None:
    node = create_workspace("my-crunch", "prediction", tmp_path, Layout()) / "node"
    without = {name: value for name, value in os.environ.items() if name != "API_KEY"}
    options = ["--timeout", "0.1"] if script == "verify_e2e" else []

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, f"scripts/{script}.py", "--url", url, *options]
        return subprocess.run(command, cwd=node, env=without | environment, capture_output=True, text=True, check=False)

    refused = run()
    assert refused.returncode == 1
    assert "an API key is needed" in refused.stderr
    assert said in run(API_KEY="se cret").stdout
    with (node / ".local.env").open("a") as settings:
        settings.write('API_KEY="se cret"\n')
    assert said in run().stdout
