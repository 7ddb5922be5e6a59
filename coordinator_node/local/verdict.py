"""What a run of the local stack came to, read from its database: the tables to print, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.table import Table
from sqlalchemy import text
from sqlmodel import Session, col, select

from coordinator_node.db.engine import make_engine
from coordinator_node.db.tables import CheckpointRow, LeaderboardRow
from coordinator_node.entities.emission import FRAC_64_MULTIPLIER

_MODELS = text(
    """
    SELECT models.id, models.name,
           count(predictions.id) FILTER (WHERE predictions.status = 'SCORED') AS scored,
           count(predictions.id) FILTER (WHERE predictions.status IN ('FAILED', 'ABSENT')) AS failed
    FROM models
    LEFT JOIN predictions ON predictions.model_id = models.id AND predictions.performed_at >= :since
    WHERE models.presence = 'PRESENT' OR models.presence_since >= :since
    GROUP BY models.id, models.name ORDER BY models.name
    """
)

# What fits beside the ranking value on a terminal of 80 columns.
SHOWN_METRICS = ("ic", "hit_rate", "max_drawdown")


@dataclass(frozen=True)
class Verdict:
    """What a run left behind: the newest leaderboard's entries, the newest emission that pays, and what is missing."""

    leaderboard: list[dict[str, Any]]
    checkpoint: CheckpointRow | None
    problems: list[str]


def judge(url: str, since: datetime) -> Verdict:
    """Look at what was stored since a run began."""
    engine = make_engine(url)
    try:
        with Session(engine) as session:
            models = session.connection().execute(_MODELS, {"since": since}).all()
            board = session.exec(select(LeaderboardRow).order_by(col(LeaderboardRow.created_at).desc())).first()
            checkpoints = session.exec(
                select(CheckpointRow)
                .where(col(CheckpointRow.created_at) >= since)
                .order_by(col(CheckpointRow.period_end).desc())
            ).all()
    finally:
        engine.dispose()
    problems = [] if models else ["no model was connected"]
    problems += [f"model {m.name} has no scored prediction ({m.failed} failed)" for m in models if not m.scored]
    entries = (board.entries_jsonb or []) if board and board.created_at >= since else []
    if not entries:
        problems.append("no leaderboard was written")
    # Nobody is paid for a period in which nothing was scored, as between two rounds of a tournament.
    paying = (checkpoint for checkpoint in checkpoints if _rewards(checkpoint))
    checkpoint = next(paying, checkpoints[0] if checkpoints else None)
    problems += _emission_problems(checkpoint)
    return Verdict(entries, checkpoint, problems)


def _emission_problems(checkpoint: CheckpointRow | None) -> list[str]:
    if checkpoint is None:
        return ["no checkpoint was written"]
    rewards = _rewards(checkpoint)
    if sum(rewards) != FRAC_64_MULTIPLIER:
        return [f"the emission of checkpoint {checkpoint.id} sums to {sum(rewards)}, not {FRAC_64_MULTIPLIER}"]
    return []


def _rewards(checkpoint: CheckpointRow) -> list[int]:
    return [reward["reward_pct"] for entry in checkpoint.entries_jsonb or [] for reward in entry["cruncher_rewards"]]


def leaderboard_table(entries: list[dict[str, Any]], title: str) -> Table:
    """A leaderboard as a table: rank, names, the value that ranks, and the best known of the other numbers."""
    key = entries[0]["score"]["ranking"]["key"]
    known = {name for entry in entries for name in entry["score"]["metrics"]}
    metrics = [key, *(name for name in SHOWN_METRICS if name in known and name != key)]
    table = Table(title=title, title_justify="left")
    for heading in ("rank", "model", "cruncher", *metrics):
        table.add_column(heading, justify="left" if heading in ("model", "cruncher") else "right")
    for entry in entries:
        rank = str(entry["rank"]) if entry["rank"] is not None else "-"
        values = [_number(entry["score"]["metrics"].get(name)) for name in metrics]
        table.add_row(rank, str(entry["model_name"]), str(entry["cruncher_name"]), *values)
    return table


def emission_table(checkpoint: CheckpointRow) -> Table:
    """A checkpoint's emission as a table of shares."""
    period = f"{checkpoint.period_start:%H:%M:%S} to {checkpoint.period_end:%H:%M:%S} UTC"
    table = Table(title=f"Emission of the period {period}", title_justify="left")
    for heading in ("receiver", "share", "frac64"):
        table.add_column(heading, justify="left" if heading == "receiver" else "right")
    ranking = (checkpoint.meta_jsonb or {}).get("ranking") or []
    for entry in checkpoint.entries_jsonb or []:
        for reward in entry["cruncher_rewards"]:
            name = ranking[reward["cruncher_index"]]["model_name"]
            table.add_row(f"model {name}", _share(reward), str(reward["reward_pct"]))
        for role in ("compute_provider", "data_provider"):
            for reward in entry[f"{role}_rewards"]:
                table.add_row(
                    f"{role.replace('_', ' ')} {reward['provider']}", _share(reward), str(reward["reward_pct"])
                )
    return table


def _share(reward: dict[str, Any]) -> str:
    return f"{reward['reward_pct'] / FRAC_64_MULTIPLIER:.2%}"


def _number(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
