"""Every variable is read in one place, validated at start, and listed in the example file."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator_node.config.settings import Settings, load_settings, variable_names
from coordinator_node.entities.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[2] / ".local.env.example"
# The scaffold's and the example's file say simulated, so that a first run works anywhere, and soon shows everything.
DIFFERENT = {
    "FEED_SOURCE": "simulated",
    "SCORE_INTERVAL_SECONDS": "5",
    "CHECKPOINT_INTERVAL_SECONDS": "60",
    "CHECKPOINT_GRACE_SECONDS": "20",
}


def listed() -> dict[str, str]:
    """The engine's variables; those of containers, which only docker-compose.yml reads, stand last."""
    lines = EXAMPLE.read_text().partition("# --- Containers only")[0].splitlines()
    return dict(m.groups() for line in lines if (m := re.fullmatch(r"(?:# )?([A-Z][A-Z0-9_]+)=(.*)", line)))


def test_the_example_lists_exactly_the_variables_that_are_read() -> None:
    assert set(listed()) == {names[0] for names in variable_names().values()}


def test_the_examples_values_are_the_defaults() -> None:
    example = load_settings({**listed(), **{name: "" for name in DIFFERENT}})
    assert example == load_settings({})
    assert {name: value for name, value in listed().items() if name in DIFFERENT} == DIFFERENT


def test_contract_defaults() -> None:
    settings = load_settings({})
    assert (settings.crunch_id, settings.feed_source, settings.feed_subjects) == ("starter-challenge", "pyth", ("BTC",))
    assert (settings.feed_kind, settings.feed_granularity) == ("tick", "1s")
    assert (settings.score_interval_seconds, settings.checkpoint_interval_seconds) == (60, 604800)
    assert settings.sqlalchemy_url == "postgresql+psycopg://starter:starter@postgres:5432/starter"
    assert settings.model_base_classname == "tracker.TrackerBase"
    assert (settings.model_runner_node_host, settings.model_runner_node_port) == ("model-orchestrator", 9091)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NETWORK", "testnet"),
        ("POSTGRES_PORT", "many"),
        ("FEED_KIND", "trade"),
        ("FEED_PROVIDER", ""),
        ("FEED_SUBJECTS", " , "),
        ("FEED_GRANULARITY", "2m"),
        ("SCORE_INTERVAL_SECONDS", "0"),
        ("CHECKPOINT_START", "soon"),
        ("CHECKPOINT_GRACE_SECONDS", "inf"),
        ("GROUND_TRUTH_TIMEOUT_SECONDS", "1e15"),
        ("SCORE_INTERVAL_SECONDS", "nan"),
        ("API_READ_AUTH", "perhaps"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_refused_with_the_variables_name(variable: str, value: str) -> None:
    if not value:
        assert load_settings({variable: value}) == load_settings({})
        return
    with pytest.raises(ConfigurationError, match=f"^{variable}: "):
        load_settings({variable: value})


def test_older_names_and_feed_options() -> None:
    settings = load_settings(
        {
            "FEED_PROVIDER": "Simulated",
            "FEED_ASSETS": "ETH, BTC,ETH",
            "FEED_OPT_feed_id_BTC": "0xe6",
            "FEED_OPT_seed": "3",
        }
    )
    assert settings.feed_source == "simulated"
    assert settings.feed_subjects == ("ETH", "BTC")
    assert settings.feed_options == {"feed_id_BTC": "0xe6", "seed": "3"}
    assert load_settings({"FEED_SOURCE": "replay", "FEED_PROVIDER": "simulated"}).feed_source == "replay"


def test_the_database_may_be_a_socket_or_a_url_with_any_characters() -> None:
    socket = load_settings({"POSTGRES_HOST": "/var/run/pg", "POSTGRES_USER": "a b", "POSTGRES_PASSWORD": "p@/:"})
    assert socket.sqlalchemy_url == ("postgresql+psycopg://a%20b:p%40%2F%3A@/starter?host=%2Fvar%2Frun%2Fpg&port=5432")
    for scheme in ("postgres", "postgresql", "postgresql+psycopg2"):
        url = load_settings({"DATABASE_URL": f"{scheme}://u:p@h/d"}).sqlalchemy_url
        assert url == "postgresql+psycopg://u:p@h/d"
    for wrong in ("mysql://u@h/d", "postgresql://u:p@h:port/d", "h/d"):
        with pytest.raises(ConfigurationError, match=r"^DATABASE_URL: "):
            load_settings({"DATABASE_URL": wrong})


def test_times_are_utc_and_the_score_cycle_is_at_most_the_checkpoint_interval() -> None:
    settings = load_settings({"CHECKPOINT_START": "2026-01-01T00:00:00", "CHECKPOINT_INTERVAL_SECONDS": "20"})
    assert settings.checkpoint_start == datetime(2026, 1, 1, tzinfo=UTC)
    assert settings.score_cycle_seconds == 20


def test_secrets_are_not_printed() -> None:
    printed = repr(load_settings({"API_KEY": "hidden-1", "POSTGRES_PASSWORD": "hidden-2", "PYTH_API_KEY": "hidden-3"}))
    assert "hidden" not in printed
    assert isinstance(load_settings({}), Settings)
