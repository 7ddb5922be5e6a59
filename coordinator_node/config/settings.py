"""Every environment variable that the engine reads, in one class, validated at start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.times import as_utc

CommaList = Annotated[tuple[str, ...], NoDecode]
# A century is far beyond any use, and near enough for times to be added to.
LONGEST_SECONDS = 100 * 366 * 86400
Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, le=LONGEST_SECONDS / 86400, allow_inf_nan=False)]

DEFAULT_PUBLIC_PREFIXES = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/info",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/reports/schema",
    "/reports/leaderboard",
    "/reports/models",
    "/reports/feeds",
    "/reports/diversity",
    "/reports/ensemble",
    "/reports/checkpoints/rewards",
    "/reports/merkle",
    "/reports/evidence",
)
DEFAULT_ADMIN_PREFIXES = ("/reports/backfill", "/reports/checkpoints/", "/tournament", "/custom")

OPTION_PREFIX = "FEED_OPT_"

RATE_OFF = "off"
_RATE = re.compile(r"([1-9]\d{0,8})(?:/(second|minute|hour))?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")
_PERIOD_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


class Settings(BaseSettings):
    """The environment of a worker. An empty variable counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", populate_by_name=True)

    # The competition
    crunch_id: str = "starter-challenge"
    crunch_pubkey: str = ""
    compute_provider_pubkey: str = ""
    data_provider_pubkey: str = ""
    network: Literal["devnet", "mainnet-beta"] = "devnet"
    crunch_config_module: str = ""

    # The database
    postgres_host: str = "postgres"
    postgres_port: int = Field(default=5432, ge=1, le=65535)
    postgres_user: str = "starter"
    postgres_password: SecretStr = SecretStr("starter")
    postgres_db: str = "starter"
    database_url: SecretStr = SecretStr("")
    database_read_url: SecretStr = SecretStr("")

    # The feed
    feed_source: str = Field(default="pyth", validation_alias=AliasChoices("FEED_SOURCE", "FEED_PROVIDER"))
    feed_subjects: CommaList = Field(default=("BTC",), validation_alias=AliasChoices("FEED_SUBJECTS", "FEED_ASSETS"))
    feed_kind: Literal["tick", "candle", "depth", "funding"] = "tick"
    feed_granularity: Literal["1s", "1m", "5m", "15m", "1h", "1d"] = "1s"
    feed_poll_seconds: Seconds = 5
    feed_backfill_minutes: float = Field(default=180, ge=0, le=LONGEST_SECONDS / 60, allow_inf_nan=False)
    feed_record_ttl_days: Days = Field(
        default=90, validation_alias=AliasChoices("FEED_RECORD_TTL_DAYS", "MARKET_RECORD_TTL_DAYS")
    )
    feed_retention_check_seconds: Seconds = 3600
    feed_candles_window: int = Field(default=120, ge=1)
    pyth_hermes_url: str = ""
    pyth_benchmarks_url: str = ""
    pyth_timeout_seconds: Seconds = 5
    pyth_api_key: SecretStr = SecretStr("")

    # The operator's callables, as dotted paths module:callable
    scoring_function: str = "coordinator_node.extensions.default_callables:default_score_prediction"
    inference_input_builder: str = ""
    inference_output_validator: str = ""
    model_score_aggregator: str = ""
    leaderboard_ranker: str = ""

    # The stages
    score_interval_seconds: Seconds = 60
    checkpoint_interval_seconds: int = Field(default=604800, ge=1, le=LONGEST_SECONDS)
    checkpoint_start: datetime | None = None
    checkpoint_grace_seconds: SecondsOrNone = 600
    ground_truth_timeout_seconds: Seconds = 86400
    merkle_commit_predictions: bool = True

    # The models
    model_base_classname: str = "tracker.TrackerBase"
    model_runner_node_host: str = "model-orchestrator"
    model_runner_node_port: int = Field(default=9091, ge=1, le=65535)
    model_runner_timeout_seconds: Seconds = 60
    model_runner_max_consecutive_failures: int = Field(default=100, ge=0)
    model_runner_max_consecutive_timeouts: int = Field(default=100, ge=0)
    model_runner_report_failure: bool = True
    gateway_cert_dir: str = ""
    secure_cert_dir: str = ""

    # The report API
    report_api_host: str = "0.0.0.0"  # noqa: S104 - the documented default; deployments publish it on 127.0.0.1
    report_api_port: int = Field(default=8000, ge=1, le=65535)
    report_ui_port: int = Field(default=3000, ge=1, le=65535)
    report_ui_build_context: str = ""
    api_key: SecretStr = SecretStr("")
    api_read_auth: bool = False
    api_public_prefixes: CommaList = DEFAULT_PUBLIC_PREFIXES
    api_admin_prefixes: CommaList = DEFAULT_ADMIN_PREFIXES
    api_routes_dir: Path = Path("api/")
    api_routes: CommaList = ()
    api_cors_origins: CommaList = ("*",)
    api_rate_limit: str = RATE_OFF
    api_trusted_proxies: CommaList = ()

    # Files, retention, observability
    backfill_data_dir: Path = Path("data/backfill")
    input_ttl_days: Days | None = None
    leaderboard_ttl_days: Days | None = None
    worker_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    worker_alive_file: Path | None = None
    log_format: Literal["", "json", "text"] = ""
    log_level: Literal["", "DEBUG", "INFO", "WARNING", "ERROR"] = ""

    # FEED_OPT_<NAME>, the provider's own options, by what stands behind the prefix
    feed_options: dict[str, str] = Field(default_factory=dict, validation_alias=AliasChoices("feed_options"))

    @field_validator(
        "feed_subjects",
        "api_public_prefixes",
        "api_admin_prefixes",
        "api_routes",
        "api_cors_origins",
        "api_trusted_proxies",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("feed_subjects")
    @classmethod
    def _distinct_subjects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("names no subject")
        return tuple(dict.fromkeys(value))

    @field_validator("feed_source")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        return value.strip().lower()

    @field_validator("database_url", "database_read_url")
    @classmethod
    def _usable_url(cls, value: SecretStr) -> SecretStr:
        given = value.get_secret_value()
        if given:
            try:
                make_url(with_driver(given))
            except (ArgumentError, ValueError):
                # Not the address itself: it holds a password.
                raise ValueError("is no postgresql://user:password@host:port/database address") from None
        return value

    @field_validator("api_key")
    @classmethod
    def _usable_key(cls, value: SecretStr) -> SecretStr:
        given = value.get_secret_value()
        if given != given.strip() or not given.isprintable():
            # Headers lose such characters, so that the right key would never be recognised.
            raise ValueError("must have no space at its ends and no control characters; leave it empty for no key")
        return value

    @field_validator("api_rate_limit")
    @classmethod
    def _usable_rate(cls, value: str) -> str:
        if value != RATE_OFF and not _RATE.fullmatch(value):
            raise ValueError("is neither off nor a number of requests per time, such as 600/minute or 20/second")
        return value

    @field_validator("api_trusted_proxies")
    @classmethod
    def _usable_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                everybody = ip_network(proxy).prefixlen == 0
            except ValueError as error:
                # The server would take it for a name that nobody has, and every client for the proxy.
                raise ValueError(f"{proxy!r} is no address and no network such as 172.16.0.0/12 ({error})") from None
            if everybody:
                raise ValueError(f"{proxy} is everybody, and whoever asks could pretend to be another")
        return value

    @field_validator("api_cors_origins")
    @classmethod
    def _usable_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                # Browsers send exactly this much; anything else would match no page.
                raise ValueError(f"{origin!r} is no origin such as https://ui.example, without a path or slash behind")
        return value

    @field_validator("checkpoint_start")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        return None if value is None else as_utc(value)

    @property
    def sqlalchemy_url(self) -> str:
        """The database as SQLAlchemy's psycopg 3 dialect takes it; DATABASE_URL overrides the parts."""
        given = self.database_url.get_secret_value()
        if given:
            return with_driver(given)
        user = f"{quote(self.postgres_user, safe='')}:{quote(self.postgres_password.get_secret_value(), safe='')}"
        name = quote(self.postgres_db, safe="")
        if self.postgres_host.startswith("/"):
            host = quote(self.postgres_host, safe="")
            return f"postgresql+psycopg://{user}@/{name}?host={host}&port={self.postgres_port}"
        return f"postgresql+psycopg://{user}@{self.postgres_host}:{self.postgres_port}/{name}"

    @property
    def sqlalchemy_read_url(self) -> str | None:
        """The read replica, in the same form; None where there is none."""
        given = self.database_read_url.get_secret_value()
        return with_driver(given) if given else None

    @property
    def request_rate(self) -> tuple[int, float] | None:
        """How many requests one client may make in how many seconds; None without a limit."""
        found = _RATE.fullmatch(self.api_rate_limit)
        return (int(found[1]), _PERIOD_SECONDS[found[2] or "minute"]) if found else None

    @property
    def score_cycle_seconds(self) -> float:
        """Seconds between score cycles: SCORE_INTERVAL_SECONDS, at most the checkpoint interval."""
        return min(self.score_interval_seconds, float(self.checkpoint_interval_seconds))


def with_driver(url: str) -> str:
    """A Postgres URL of any common spelling, with the driver that the engine uses.

    Raises:
        ValueError: it is not Postgres's.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgres", "postgresql"):
        raise ValueError("does not start with postgresql://")
    return f"postgresql+psycopg://{rest}"


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment.

    Raises:
        ConfigurationError: one line for each variable that is wrong, with its name and its value's fault.
    """
    environ = os.environ if environ is None else environ
    options = {key[len(OPTION_PREFIX) :]: value for key, value in environ.items() if key.startswith(OPTION_PREFIX)}
    try:
        return Settings.model_validate({**_known(environ), "feed_options": options})
    except ValidationError as error:
        raise ConfigurationError("; ".join(_fault(e["loc"], e["msg"]) for e in error.errors())) from None


def variable_names() -> dict[str, tuple[str, ...]]:
    """For each field of Settings, its variable's names: the present one first, then the older ones."""
    names: dict[str, tuple[str, ...]] = {}
    for field, info in Settings.model_fields.items():
        if field == "feed_options":
            continue
        alias = info.validation_alias
        choices = (
            tuple(str(choice) for choice in alias.choices) if isinstance(alias, AliasChoices) else (field.upper(),)
        )
        names[field] = choices
    return names


def _known(environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, names in variable_names().items():
        value = next((environ[name] for name in names if environ.get(name, "") != ""), None)
        if value is not None:
            found[field] = value
    return found


def _fault(location: tuple[int | str, ...], message: str) -> str:
    field = str(location[0]) if location else ""
    name = variable_names().get(field, (field.upper(),))[0]
    return f"{name}: {message.removeprefix('Value error, ')}"
