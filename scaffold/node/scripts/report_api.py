"""The report API, for the scripts beside: asked with the key of API_KEY, where the terminal or .local.env sets one."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ASK_SECONDS = 30.0


def api_key() -> str:
    """The terminal's key, else that of .local.env in the present folder; empty where there is none."""
    if "API_KEY" in os.environ:
        return os.environ["API_KEY"]
    file = Path(".local.env")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    keys = [line.partition("=")[2].strip().strip("'\"") for line in lines if line.startswith("API_KEY=")]
    return keys[-1] if keys else ""


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What it answers, to a POST where there is a body.

    Raises:
        OSError: it does not answer, or refuses; a refusal says what the API gave as its reason.
        ValueError: it answers something else than JSON.
    """
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if (key := api_key()) else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        refused.msg = f"{refused.msg}: {refused.read().decode(errors='replace')}"
        raise
