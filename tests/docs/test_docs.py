"""What the documentation tells its readers to type works as it is written; what it names exists."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from api_cases import KEY
from backtest_cases import every, walk, write_files
from doc_blocks import SHELLS, blocks_of, commands_of
from doc_cases import ROOT, Reader, check, environment
from sqlalchemy import Engine

from coordinator_node.api.app import create_app
from coordinator_node.cli.init import Layout, create_workspace
from coordinator_node.cli.templates import packs
from coordinator_node.config.settings import OPTION_PREFIX, load_settings, variable_names
from coordinator_node.crunch_config import CrunchConfig

PAGES = [ROOT / "README.md", *(page for name in ("deployment", "docs") for page in sorted((ROOT / name).rglob("*.md")))]
RECORDED_FROM = datetime(2026, 10, 1, 9, 55, tzinfo=UTC)
# Where in a workspace the reader of a page is; of the other pages, in an empty folder.
PLACES = {
    "backtest.md": "challenge",
    "doctor.md": "..",
    "models.md": "node",
    "payouts.md": "node",
    "operate.md": "node",
    "api.md": "node",
}


@pytest.fixture
def reader(tmp_path: Path, competition: Callable[[], tuple[Engine, str]]) -> Reader:
    """A reader in an empty folder."""
    folder = tmp_path / "reader"
    folder.mkdir()
    return Reader(folder, competition, {**environment(tmp_path / "home"), "API_KEY": KEY})


def prepare(reader: Reader, page: Path) -> None:
    """What a page takes for granted: a workspace, past records, a model, the script beside it."""
    if page.name in PLACES:
        workspace = create_workspace("my-crunch", "prediction", reader.folder, Layout())
        give_records(workspace / "challenge")
        reader.folder = (workspace / PLACES[page.name]).resolve()
    for file in page.parent.glob("*.py"):
        shutil.copy(file, reader.folder)


def give_records(challenge: Path) -> None:
    """An hour of records, as the pages play, and a model of the reader's own."""
    times = every(1, RECORDED_FROM, RECORDED_FROM + timedelta(minutes=70))
    write_files(challenge / "data" / "backfill", [*walk("BTC", times), *walk("ETH", times)])
    (challenge / "my_model.py").write_text("from my_crunch.examples.momentum import Momentum as MyTracker\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_says_works(reader: Reader, page: Path) -> None:
    prepare(reader, page)
    reader.read(page)
    assert not reader.problems, "\n".join(reader.problems)


@pytest.mark.parametrize("pack", sorted(packs()))
def test_what_a_workspace_says_can_be_typed(tmp_path: Path, pack: str) -> None:
    """What it says in Python is run by the challenge's own tests, which tests/cli runs."""
    workspace = create_workspace("my-crunch", pack, tmp_path, Layout())
    for page in (workspace / "README.md", workspace / "challenge" / "README.md"):
        for block in blocks_of(page):
            for command in commands_of(block) if block.language in SHELLS else ():
                for part in command.parts():
                    check(part, page.parent)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("```sh\ncoordinator-node init btc-up --packs trading\n```", "--packs"),
        ("```sh\ncoordinator-node backfil --from 2026-01-01\n```", "backfil"),
        ("```sh\ncoordinator-node backfill --source binance --from soon\n```", "soon"),
        ("```sh\ncoordinator-node list-packs | coordinator-node up --second 3\n```", "--second"),
        ('```sh\nmake demo ARGS="--secnds 3"\n```', "--secnds"),
        ("```sh\nmake demoo\n```", "demoo"),
        ("```sh\npython -m coordinator_node.workers.feed_worker\n```", "feed_worker"),
        ("```sh\ncp nowhere \\\n   here\n```", "nowhere"),
        ("```sh\nfrobnicate\n```", "frobnicate"),
        ("```sh\ncurl http://localhost:8000/reports/leaderbord\n```", "404"),
        ("```sql\nSELECT moved_on FROM checkpoint_moves\n```", "moved_on"),
        ("```python\nfrom coordinator_node.crunch_config import CrunchConfigs\n```", "CrunchConfigs"),
        ("```python\n# config/crunch_config.py\n```", "config/crunch_config.py"),
        ("```toml\na = \n```", "toml"),
        ("```sch\nls\n```", "sch"),
    ],
)
def test_what_does_not_work_is_found(reader: Reader, tmp_path: Path, block: str, said: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{block}\n")
    reader.read(page)
    (problem,) = reader.problems
    assert said in problem
    assert problem.startswith("page.md:4: ")


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())
        if not leads_somewhere(page, target)
    ]
    assert not broken


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    place = page.parent / path if path else page
    if not anchor:
        return place.exists()
    headings = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
    return anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [os.path.relpath(page, ROOT / "docs") for page in PAGES]
    assert [page for page in pages if f"]({page})" not in index and page not in ("README.md", "../README.md")] == []


# Words of SQL and of the system, and the example of a mistake.
NO_VARIABLES = {"CURRENT_USER", "FEED_SUBJECT", "RLIMIT_FSIZE"}


def test_every_variable_that_is_named_is_read() -> None:
    known = {name for names in variable_names().values() for name in names} | NO_VARIABLES
    # What only containers and their scripts read.
    for file in (ROOT / "scaffold" / "node").rglob("*"):
        if file.is_file() and file.suffix in (".py", ".yml", ""):
            known |= set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", file.read_text()))
    unknown = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b(?![*_<])", page.read_text())
        if name not in known and not name.startswith(OPTION_PREFIX)
    ]
    assert not unknown


def test_every_endpoint_that_is_named_is_served(engine: Engine) -> None:
    served = create_app(load_settings({"API_ROUTES_DIR": "none"}), engine, CrunchConfig(mode="tournament")).openapi()
    patterns = [re.compile(re.sub(r"\{\w+\}", r"[^/]+", path)) for path in served["paths"]]
    patterns += [re.compile(path) for path in ("/docs", "/openapi.json")]
    unknown = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in PAGES
        for path in re.findall(r"`(?:(?:GET|POST|PATCH) )?(/[a-z][\w/{}<>-]*[\w}>])(?:\?[^`]*)?`", page.read_text())
        if path.split("/")[1] in {*(p.split("/")[1] for p in served["paths"])}
        if not any(pattern.fullmatch(path) for pattern in patterns)
    ]
    assert not unknown


def test_every_metric_that_is_named_is_in_the_code() -> None:
    code = "".join(file.read_text() for file in (ROOT / "coordinator_node").rglob("*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(coordinator_[a-z]+_[a-z_]+)", page.read_text())}
    assert named
    assert [name for name in sorted(named) if f'"{name}"' not in code] == []
