"""`doctor`: every kind of mistake is found in a workspace that is otherwise right, and nothing is found in those."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from websockets.sync.server import ServerConnection, serve

from coordinator_node.cli.doctor.workspace import inside
from coordinator_node.cli.init import Layout, create_workspace
from coordinator_node.cli.main import app
from coordinator_node.cli.templates import packs
from coordinator_node.config.settings import variable_names
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.local.demo import WORKSPACE as DEMO
from coordinator_node.local.workspace import workspace_plan


@pytest.fixture(autouse=True)
def _no_settings_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in variable_names().values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


class Workspace:
    """A workspace of the pack `prediction`, to be changed and looked at."""

    def __init__(self, node: Path) -> None:
        self.node = node
        self.challenge = node.parent / "challenge" / "my_crunch"

    def set(self, **variables: str) -> None:
        with (self.node / ".local.env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in variables.items())

    def config(self, body: str, head: str = "") -> None:
        """Overrides in the node's config; `head` stands before the class."""
        text = "from typing import Any, Callable\nfrom my_crunch.config import CrunchConfig as Base\n"
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        (self.node / "config" / "crunch_config.py").write_text(f"{text}{head}\nclass CrunchConfig(Base):\n{lines}\n")

    def module(self, text: str) -> None:
        """A module `mine` beside the config."""
        (self.node / "mine.py").write_text(text)

    def replace(self, file: str, old: str, new: str) -> None:
        path = self.challenge / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def look(self, *options: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["doctor", str(self.node), "--json", *(options or ("--offline",))])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return done.exit_code, json.loads(done.stdout)

    def found(self, check: str) -> tuple[int, str, str]:
        """The exit code, and level and text of the first finding of a check; the others have that level too."""
        code, document = self.look()
        finding, *others = [each for each in document["checks"] if each["check"] == check]
        assert all(other["level"] == finding["level"] for other in others)
        return code, finding["level"], f"{finding['message']} -> {finding['remedy']}"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(create_workspace("my-crunch", "prediction", tmp_path, Layout()) / "node")


@pytest.mark.parametrize("pack", sorted(packs()))
def test_every_pack_is_without_any_finding(tmp_path: Path, pack: str) -> None:
    node = create_workspace("my-crunch", pack, tmp_path, Layout()) / "node"
    code, document = Workspace(node).look()
    assert (code, document["verdict"], document["offline"]) == (0, "ok", True), document
    assert document["workspace"] == str(node)
    assert {frozenset(check) for check in document["checks"]} == {frozenset({"check", "level", "message", "remedy"})}
    assert len(document["checks"]) >= 14


def test_the_demo_is_without_any_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEED_SOURCE", "simulated")
    monkeypatch.setenv("FEED_SUBJECTS", "BTC,ETH,SOL")
    code, document = Workspace(DEMO).look()
    assert (code, document["verdict"]) == (0, "ok"), document


def test_an_older_name_in_the_file_stands_over_the_newer_one_of_the_terminal(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (workspace.node / ".local.env").read_text().replace("FEED_SOURCE=", "FEED_PROVIDER=")
    (workspace.node / ".local.env").write_text(text)
    monkeypatch.setenv("FEED_SOURCE", "pyth")
    assert workspace.found("feed")[:2] == (0, "ok")
    assert os.environ["FEED_SOURCE"] == "pyth"
    (workspace.node / "submissions").mkdir()
    environment = workspace_plan(workspace.node, None, None).environment
    assert (environment["FEED_PROVIDER"], environment["FEED_SOURCE"]) == ("simulated", None)


def test_a_metric_is_given_a_window_that_holds_what_was_said(workspace: Workspace) -> None:
    workspace.config(
        "metrics: list[str] = ['doctors_share']",
        head="from coordinator_node.metrics import get_default_registry\n"
        "def share(predictions, scores, context):\n"
        "    said = [p for p in predictions if context.window_start <= p['performed_at'] <= context.window_end]\n"
        "    return len(predictions) / len(said)\n"
        "get_default_registry().register('doctors_share', share)",
    )
    code, document = workspace.look()
    assert (code, document["verdict"]) == (0, "ok"), document


MISTAKES: dict[str, tuple[Callable[[Workspace], None], str, str, list[str]]] = {
    "a wrong value": (lambda w: w.set(FEED_GRANULARITY="2m"), "settings", "failed", ["FEED_GRANULARITY", "'15m'"]),
    "a kind that is none": (lambda w: w.set(FEED_KIND="candles"), "settings", "failed", ["FEED_KIND", "'candle'"]),
    "a misspelt variable of the feed": (
        lambda w: w.set(FEED_SUBJECT="BTC"),
        "variables",
        "warning",
        ["FEED_SUBJECT is no variable", "did you mean FEED_SUBJECTS?"],
    ),
    "an unknown variable of the API": (
        lambda w: w.set(API_COLOUR="red"),
        "variables",
        "warning",
        ["API_COLOUR", ".local.env.example"],
    ),
    "a variable cut short": (
        lambda w: w.set(CHECKPOINT_INTERVAL="60"),
        "variables",
        "warning",
        ["did you mean CHECKPOINT_INTERVAL_SECONDS?"],
    ),
    "a config that cannot be imported": (
        lambda w: w.config("pass", head="import no_such_library"),
        "config",
        "failed",
        ["No module named 'no_such_library'", "config/crunch_config.py:3"],
    ),
    "a config that exits": (lambda w: w.config("pass", head="raise SystemExit(3)"), "config", "failed", ["SystemExit"]),
    "a config that is not valid": (
        lambda w: w.config("needed: int"),
        "config",
        "failed",
        ["needed: Field required", "config/crunch_config.py:4"],
    ),
    "a source that is none": (
        lambda w: w.set(FEED_SOURCE="binanc"),
        "feed",
        "failed",
        ["FEED_SOURCE=binanc", "did you mean binance?"],
    ),
    "an option that is none": (lambda w: w.set(FEED_OPT_sed="3"), "feed", "failed", ["FEED_OPT_sed", "FEED_OPT_seed"]),
    "a kind that the source has not": (lambda w: w.set(FEED_KIND="depth"), "feed", "failed", ["no depth records"]),
    "a missing key": (lambda w: w.set(FEED_SOURCE="pyth"), "feed", "failed", ["PYTH_API_KEY", "FEED_SOURCE"]),
    "an unknown subject of the source": (
        lambda w: w.set(FEED_SOURCE="pyth", PYTH_API_KEY="k", FEED_SUBJECTS="DOGE"),
        "feed",
        "failed",
        ["FEED_OPT_feed_id_DOGE"],
    ),
    "horizons too short": (
        lambda w: w.set(FEED_GRANULARITY="1m"),
        "schedules",
        "failed",
        ["horizon of 15 s", "spacing of 60 s"],
    ),
    "a subject that the feed has not": (
        lambda w: w.set(FEED_SUBJECTS="BTC"),
        "schedules",
        "failed",
        ["'ETH' is not among FEED_SUBJECTS"],
    ),
    "no schedule": (
        lambda w: w.config("scheduled_predictions: list[Any] = []"),
        "schedules",
        "warning",
        ["no model is ever asked"],
    ),
    "a service of one's own": (
        lambda w: w.config("predict_service_class: type | None = dict"),
        "models",
        "failed",
        ["predict_service_class dict"],
    ),
    "credentials that are not there": (
        lambda w: w.set(GATEWAY_CERT_DIR="nowhere"),
        "models",
        "failed",
        ["GATEWAY_CERT_DIR"],
    ),
    "an input builder with another signature": (
        lambda w: w.module("def build(): return {}") or w.set(INFERENCE_INPUT_BUILDER="mine:build"),
        "input",
        "failed",
        ["build must take (raw_input)"],
    ),
    "an input builder that looks for what is not there": (
        lambda w: w.module("\ndef build(raw): return raw['candles_5m']") or w.set(INFERENCE_INPUT_BUILDER="mine:build"),
        "input",
        "failed",
        ["KeyError: 'candles_5m' (mine.py:2)"],
    ),
    "a callable that is not there": (
        lambda w: w.set(INFERENCE_INPUT_BUILDER="mine:build"),
        "input",
        "failed",
        ["INFERENCE_INPUT_BUILDER: mine:build", "No module named 'mine'"],
    ),
    "a validator that breaks": (
        lambda w: (
            w.module("def check(output): return output['signal']") or w.set(INFERENCE_OUTPUT_VALIDATOR="mine:check")
        ),
        "output",
        "failed",
        ["KeyError: 'signal' (mine.py:1)"],
    ),
    "a validator with another signature": (
        lambda w: w.module("def check(a, b): return a") or w.set(INFERENCE_OUTPUT_VALIDATOR="mine:check"),
        "output",
        "failed",
        ["check must take (output)"],
    ),
    "outputs that cannot be made up": (
        lambda w: w.config(
            "output_type: type[Picky] = Picky",
            head="from pydantic import BaseModel, Field\n"
            "class Picky(BaseModel):\n    code: str = Field(pattern='^Q[0-9]{9}$')",
        ),
        "output",
        "warning",
        ["no valid answer of Picky", "examples"],
    ),
    "a resolver with another signature": (
        lambda w: w.config("resolve_ground_truth: Callable[..., Any] = lambda: {}"),
        "ground truth",
        "failed",
        ["must take (feed_records, prediction)"],
    ),
    "a resolver that looks for what is not there": (
        lambda w: w.config(
            "resolve_ground_truth: Callable[..., Any] = resolve",
            head="def resolve(records): return {'profit': records[-1].values['close']}",
        ),
        "ground truth",
        "failed",
        ["schedule BTC-15", "KeyError: 'close' (config/crunch_config.py:3)"],
    ),
    "a resolver that never knows": (
        lambda w: w.config("resolve_ground_truth: Callable[..., Any] = lambda records: None"),
        "ground truth",
        "warning",
        ["gives None"],
    ),
    "a truth that its type refuses": (
        lambda w: w.config(
            "ground_truth_type: type[Truth] = Truth",
            head="from coordinator_node.crunch_config import GroundTruth\nclass Truth(GroundTruth):\n    strike: float",
        ),
        "ground truth",
        "failed",
        ["strike"],
    ),
    "a key that the truth has not": (
        lambda w: w.replace("scoring.py", 'ground_truth["profit"] * 10_000', 'ground_truth["proft"] * 10_000'),
        "scoring",
        "failed",
        ["ground truth has no 'proft'", "challenge/my_crunch/scoring.py:", "did you mean profit?"],
    ),
    "a key that the prediction has not": (
        lambda w: w.replace("scoring.py", 'prediction["value"]', 'prediction["valu"]'),
        "scoring",
        "failed",
        ["prediction has no 'valu'; it has model_id, prediction_id, value", "did you mean value?"],
    ),
    "the same score for all": (
        lambda w: w.replace("scoring.py", 'prediction["value"]', 'prediction.get("valu", 0.0)'),
        "scoring",
        "failed",
        ["different predictions get the same score", "looked for 'valu' in vain"],
    ),
    "the same score whatever happened": (
        lambda w: w.replace("scoring.py", 'ground_truth["profit"] * 10_000', "1.0"),
        "scoring",
        "warning",
        ["whatever happened"],
    ),
    "the default scoring function": (
        lambda w: w.config("scoring_function: Callable[..., Any] | None = None"),
        "scoring",
        "warning",
        ["default scoring function is in use", "SCORING_FUNCTION"],
    ),
    "a scoring function without the state": (
        lambda w: w.config("stateful_scoring: bool = True"),
        "scoring",
        "failed",
        ["must take (prediction, ground_truth, state)"],
    ),
    "a score that is no dict": (
        lambda w: w.config("scoring_function: Callable[..., Any] | None = lambda p, g: 1.0"),
        "scoring",
        "failed",
        ["returned a float, not a dict"],
    ),
    "an unknown ranking key": (
        lambda w: w.config(
            "aggregation: Aggregation = Aggregation(ranking_key='sharp')",
            head="from coordinator_node.crunch_config import Aggregation",
        ),
        "aggregation",
        "failed",
        ["ranking_key 'sharp'"],
    ),
    "a value field that no summary holds": (
        lambda w: w.config(
            "aggregation: Aggregation = Aggregation(value_field='actual_retur')",
            head="from coordinator_node.crunch_config import Aggregation",
        ),
        "aggregation",
        "failed",
        ["value_field 'actual_retur'", "did you mean actual_return?"],
    ),
    "an aggregator that drops the value": (
        lambda w: w.config("aggregate_snapshot: Callable[..., Any] = lambda results: {'mean': 1.0}"),
        "aggregation",
        "failed",
        ["value_field 'value'", "summaries hold mean"],
    ),
    "an aggregator with another signature": (
        lambda w: w.module("def add(a, b): return {}") or w.set(MODEL_SCORE_AGGREGATOR="mine:add"),
        "aggregation",
        "failed",
        ["add must take (score_results)"],
    ),
    "a ranker that loses its way": (
        lambda w: (
            w.module("def rank(entries, aggregation): return [{'model_id': 'x'}]")
            or w.set(LEADERBOARD_RANKER="mine:rank")
        ),
        "aggregation",
        "failed",
        ["LEADERBOARD_RANKER returned the unknown model 'x'"],
    ),
    "a ranker with another signature": (
        lambda w: w.module("def rank(entries): return entries") or w.set(LEADERBOARD_RANKER="mine:rank"),
        "aggregation",
        "failed",
        ["rank must take (entries, aggregation)"],
    ),
    "a metric that is none": (
        lambda w: w.config("metrics: list[str] = ['hit_rat']"),
        "metrics",
        "failed",
        ["no metric 'hit_rat'", "did you mean hit_rate?"],
    ),
    "a metric that raises": (
        lambda w: w.config(
            "metrics: list[str] = ['doctors_own']",
            head="from coordinator_node.metrics import get_default_registry\n"
            "def own(predictions, scores, context): return scores[0]['value']\n"
            "get_default_registry().register('doctors_own', own)",
        ),
        "metrics",
        "failed",
        ["'doctors_own' raised KeyError: 'value' (config/crunch_config.py:4)"],
    ),
    "compute_metrics with another signature": (
        lambda w: w.config("compute_metrics: Callable[..., Any] = lambda names: {}"),
        "metrics",
        "failed",
        ["must take (metrics, predictions, scores, context)"],
    ),
    "a strategy that raises": (
        lambda w: w.config(
            "ensembles: list[Any] = [EnsembleConfig(name='best', strategy=lambda m, p: {i: m[i]['nope'] for i in p})]",
            head="from coordinator_node.crunch_config import EnsembleConfig",
        ),
        "ensembles",
        "failed",
        ["best: KeyError: 'nope'"],
    ),
    "a filter with another signature": (
        lambda w: w.config(
            "ensembles: list[Any] = [EnsembleConfig(name='best', model_filter=lambda model_id: True)]",
            head="from coordinator_node.crunch_config import EnsembleConfig",
        ),
        "ensembles",
        "failed",
        ["model_filter", "must take (model_id, metrics)"],
    ),
    "a strategy without weights": (
        lambda w: w.config(
            "ensembles: list[Any] = [EnsembleConfig(name='none', strategy=lambda m, p: {})]",
            head="from coordinator_node.crunch_config import EnsembleConfig",
        ),
        "ensembles",
        "warning",
        ["gives no model a weight"],
    ),
    "an emission that does not sum": (
        lambda w: w.config(
            "build_emission: Callable[..., Any] = pay",
            head="def pay(entries, crunch, compute_provider=None, data_provider=None):\n"
            "    shares = [{'cruncher_index': i, 'reward_pct': 333_333_333} for i in range(len(entries))]\n"
            "    return {'crunch': crunch, 'cruncher_rewards': shares, 'compute_provider_rewards': [],\n"
            "            'data_provider_rewards': []}",
        ),
        "emission",
        "failed",
        ["for 1 ranked models", "333333333"],
    ),
    "an emission with another signature": (
        lambda w: w.config("build_emission: Callable[..., Any] = lambda entries: {}"),
        "emission",
        "failed",
        ["must take (ranked_entries, crunch_pubkey, compute_provider, data_provider)"],
    ),
    "a router that cannot be imported": (
        lambda w: (w.node / "api" / "mine.py").write_text("import no_such_library") and None,
        "routes",
        "failed",
        ["mine.py cannot be imported"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(workspace: Workspace, mistake: str) -> None:
    make, check, level, said = MISTAKES[mistake]
    make(workspace)
    code, found, text = workspace.found(check)
    assert found == level, text
    assert [each for each in said if each not in text] == [], text
    assert code == (1 if level == "failed" else 0)


def test_a_truth_of_a_kind_without_prices_is_never_known(workspace: Workspace) -> None:
    workspace.set(FEED_SOURCE="binance", FEED_KIND="funding")
    code, document = workspace.look()
    messages = [each["message"] for each in document["checks"] if each["check"] == "ground truth"]
    assert code == 1
    assert "funding records have none" in messages[0]


def test_lines_are_for_a_person_one_a_check(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    workspace.set(FEED_SUBJECT="BTC")
    workspace.replace("scoring.py", 'prediction["value"]', 'prediction["valu"]')
    done = CliRunner().invoke(app, ["doctor", str(workspace.node), "--offline"])
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert lines[0] == str(workspace.node)
    assert {line.split()[0] for line in lines[1:-1]} == {"ok", "warning", "failed"}
    assert any(line.endswith("-> did you mean FEED_SUBJECTS?") for line in lines)
    assert lines[-1].startswith("1 failed, 2 warning, ")


@pytest.mark.parametrize("given", ["missing", "top", "empty"])
def test_what_is_no_workspace_is_wrong_usage(workspace: Workspace, tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    folder = {"missing": tmp_path / "gone", "top": workspace.node.parent, "empty": tmp_path / "empty"}[given]
    said = {"missing": "is not a folder", "top": f"did you mean {workspace.node}", "empty": "is no workspace"}[given]
    done = CliRunner().invoke(app, ["doctor", str(folder)])
    assert isinstance(done.exception, ConfigurationError)  # which `run` ends with 2 for
    assert said in str(done.exception)


def test_everything_is_as_before_afterwards(workspace: Workspace) -> None:
    before = (Path.cwd(), dict(os.environ), list(sys.path))
    with inside(workspace.node):
        from config.crunch_config import CrunchConfig  # type: ignore[import-not-found]  # the workspace's own

        assert CrunchConfig.__mro__[1].__module__ == "my_crunch.config"
        assert os.environ["CRUNCH_ID"] == "my-crunch"
    assert (Path.cwd(), dict(os.environ), list(sys.path)) == before
    assert not [name for name in sys.modules if name.split(".")[0] in ("config", "my_crunch")]


@pytest.fixture
def orchestrator() -> Iterator[int]:
    """The port of one that knows one model."""

    def said(connection: ServerConnection) -> None:
        connection.send(json.dumps({"event": "init", "data": [{"model_id": "1"}]}))

    with serve(said, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def test_what_stands_around_it_is_asked(workspace: Workspace, database_url: str, orchestrator: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    workspace.set(DATABASE_URL=f'"{database_url}"', REPORT_API_HOST="127.0.0.1", REPORT_API_PORT=str(port))
    workspace.set(MODEL_RUNNER_NODE_HOST="127.0.0.1", MODEL_RUNNER_NODE_PORT=str(orchestrator))
    code, document = workspace.look("--json")
    said = {each["check"]: each["message"] for each in document["checks"]}
    assert (code, document["verdict"], document["offline"]) == (0, "ok", False), document
    assert "it answers, at revision" in said["database"]
    assert "knows 1 model" in said["orchestrator"]
    assert said["port"] == f"127.0.0.1:{port} is free for the report API"


def test_what_is_away_or_taken_around_it_is_found(workspace: Workspace, empty_database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        workspace.set(DATABASE_URL=f'"{empty_database_url}"', REPORT_API_HOST="127.0.0.1", REPORT_API_PORT=port)
        workspace.set(MODEL_RUNNER_NODE_HOST="127.0.0.1", MODEL_RUNNER_NODE_PORT="1")
        code, document = workspace.look("--json")
    levels = {each["check"]: (each["level"], each["message"], each["remedy"]) for each in document["checks"]}
    assert code == 1
    assert levels["database"] == ("failed", "it has no schema of this version", "run coordinator-node migrate")
    assert "cannot be reached" in levels["orchestrator"][1]
    assert levels["port"][:2] == (
        "failed",
        f"the API cannot listen on 127.0.0.1:{port}: Address already in use",
    )


@pytest.fixture
def api() -> Iterator[int]:
    """The port of a report API of the competition `mine`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/info" else 404)
            self.end_headers()
            self.wfile.write(b'{"crunch_id": "mine", "crunch_address": "", "network": "devnet"}')

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("crunch_id", "level"), [("mine", "ok"), ("another", "failed")])
def test_the_port_may_be_taken_by_its_own_api(
    workspace: Workspace, database_url: str, api: int, crunch_id: str, level: str
) -> None:
    workspace.set(DATABASE_URL=f'"{database_url}"', REPORT_API_HOST="127.0.0.1", REPORT_API_PORT=str(api))
    workspace.set(MODEL_RUNNER_NODE_HOST="127.0.0.1", MODEL_RUNNER_NODE_PORT="1", CRUNCH_ID=crunch_id)
    _, document = workspace.look("--json")
    (said,) = [each for each in document["checks"] if each["check"] == "port"]
    assert said["level"] == level
    assert ("this competition's API answers" in said["message"]) == (level == "ok")
