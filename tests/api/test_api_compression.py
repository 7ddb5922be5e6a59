"""Who gets an answer compressed: by the whole of Accept-Encoding, on every kind of answer."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from api_cases import RunningServer, report_app, running
from report_rows import seed_everything
from sqlalchemy import Engine
from starlette.datastructures import Headers

from coordinator_node.api.compression import COMPRESSED_ABOVE, takes_gzip

TAKING = (
    "gzip",
    "GZip",
    "x-gzip",
    "deflate, gzip;q=1.0, *;q=0.5",
    "br;q=1, gzip ; q=0.001",
    "*",
    "identity, *;q=1",
    "identity;q=0.5, gzip;q=0.5",
    "gzip;q=0, x-gzip",
    "*;q=0, gzip",
    ",, gzip",
)
REFUSING = (
    "",
    "identity",
    "br, deflate",
    "gzip;q=0",
    "gzip;q=0.000, deflate",
    "gzip; Q=0",
    "*, gzip;q=0",
    "*;q=0",
    "gzip;q=0.5, identity",
    "gzipped",
    "notgzip, deflate",
    "gzip;q=2",
    "gzip;q=-1",
    "gzip;q=high",
    "gzip;level=1",
)


@pytest.mark.parametrize(("sent", "takes"), [*((sent, True) for sent in TAKING), *((sent, False) for sent in REFUSING)])
def test_who_takes_gzip_is_told_by_names_and_weights(sent: str, takes: bool) -> None:
    assert takes_gzip(Headers({"Accept-Encoding": sent})) is takes


def test_a_header_may_come_in_several_lines_or_not_at_all() -> None:
    lines = Headers(raw=[(b"accept-encoding", b"br"), (b"accept-encoding", b"gzip")])
    assert takes_gzip(lines)
    assert not takes_gzip(Headers())


MINE = """
from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

router = APIRouter()

@router.get("/mine/{size}")
def mine(size: int): return PlainTextResponse("x" * size)
"""

# Sent as it lies ready, encoded in the endpoint's thread, and by FastAPI.
KINDS = ("/reports/leaderboard", "/reports/predictions", "/reports/snapshots", "/openapi.json")


def encoding(server: RunningServer, path: str, accepted: str) -> tuple[str | None, bytes]:
    status, headers, body = server.request("GET", path, {"Accept-Encoding": accepted})
    assert status == 200
    assert "Accept-Encoding" in headers["vary"]
    return headers.get("content-encoding"), body


def test_every_kind_of_answer_heeds_the_weights(engine: Engine) -> None:
    seed_everything(engine)
    with running(report_app(engine)) as server:
        for path in KINDS:
            plain = encoding(server, path, "gzip;q=0, *")
            packed = encoding(server, path, "*;q=0.5")
            assert (plain[0], packed[0]) == (None, "gzip"), path
            assert gzip.decompress(packed[1]) == plain[1]


def test_what_is_as_short_as_a_kibibyte_stays_as_it_is(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    with running(report_app(engine, API_ROUTES_DIR=str(tmp_path))) as server:
        for size, expected in ((COMPRESSED_ABOVE, None), (COMPRESSED_ABOVE + 1, "gzip")):
            _, headers, _ = server.request("GET", f"/mine/{size}", {"Accept-Encoding": "gzip"})
            assert headers.get("content-encoding") == expected
