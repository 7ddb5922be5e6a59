"""What becomes of a checkpoint once it is made: the files it is paid from, and its way to PAID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import text, update
from sqlmodel import Session, col

from coordinator_node.db.reports.checkpoints import checkpoint_by_id
from coordinator_node.db.reports.records import Record
from coordinator_node.db.tables import CheckpointRow
from coordinator_node.entities.emission import FRAC_64_MULTIPLIER, allocate_exactly
from coordinator_node.entities.moves import IllegalMoveError, check_move
from coordinator_node.entities.prediction import CHECKPOINT_MOVES, CheckpointStatus, RetainingEmission
from coordinator_node.runtime.notify import CHECKPOINTS, notify

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EMISSION: TypeAdapter[RetainingEmission] = TypeAdapter(RetainingEmission)
# Read by the trigger that writes `checkpoint_moves`; forgotten when the transaction ends.
_SAY_WHO = text(
    "SELECT set_config('coordinator.moved_by', :who, true), set_config('coordinator.request_id', :request_id, true)"
)


@dataclass(frozen=True)
class Mover:
    """Who asks for a move, as the move's row will say, and the id of the request that asked."""

    who: str
    request_id: str


class UnknownCheckpointError(LookupError):
    """No checkpoint has that id."""

    def __init__(self, checkpoint_id: str) -> None:
        super().__init__(f"there is no checkpoint {checkpoint_id}")


class UnusableCheckpointError(ValueError):
    """A checkpoint does not hold what was asked of it; the message names what is missing."""


def emission_in(checkpoint: Record) -> RetainingEmission:
    """The emission of a checkpoint (`id`, `entries`).

    Raises:
        UnusableCheckpointError: it holds none, or something else.
    """
    entries = checkpoint["entries"]
    if not isinstance(entries, list) or not entries:
        raise UnusableCheckpointError(f"checkpoint {checkpoint['id']} holds no emission")
    try:
        return _EMISSION.validate_python(entries[0])
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise UnusableCheckpointError(
            f"checkpoint {checkpoint['id']}: its entry is no emission: {place}: {fault['msg']}"
        ) from None


def cli_emission(checkpoint: Record) -> dict[str, Any]:
    """The emission as the chain's command line takes it: percentages (0-100) by model and by provider's address.

    Args:
        checkpoint: with `id`, `entries` and `meta`, whose `ranking` says which model each index means.

    Raises:
        UnusableCheckpointError: no emission, or a rewarded index that the ranking does not name.
    """
    emission = emission_in(checkpoint)
    return {
        "crunch": emission["crunch"],
        "crunchEmission": _percentages(_rewards_by_model(checkpoint, emission)),
        "computeProvider": _percentages(
            [(r["provider"], r["reward_pct"]) for r in emission["compute_provider_rewards"]]
        ),
        "dataProvider": _percentages([(r["provider"], r["reward_pct"]) for r in emission["data_provider_rewards"]]),
    }


def prizes(checkpoint: Record, total_prize: int) -> list[dict[str, Any]]:
    """`total_prize` divided by the emission's shares into integers that sum to exactly it, in rank order.

    Models whose share is 0 are left out; without any share the list is empty.

    Raises:
        UnusableCheckpointError: as `cli_emission`.
    """
    rewards = [(model, share) for model, share in _rewards_by_model(checkpoint, emission_in(checkpoint)) if share > 0]
    parts = allocate_exactly([share for _, share in rewards], total_prize)
    timestamp = int(checkpoint["period_end"].timestamp())
    return [
        {"prizeId": f"{checkpoint['id']}-{model}", "timestamp": timestamp, "model": model, "prize": part}
        for (model, _), part in zip(rewards, parts, strict=True)
    ]


def prize_lines(checkpoint: Record, total_prize: int) -> list[dict[str, Any]]:
    """The same prizes as the lines of a JSONL file: {timestamp (epoch milliseconds of period_end), model, prize}.

    Raises:
        UnusableCheckpointError: as `cli_emission`.
    """
    timestamp = (checkpoint["period_end"] - _EPOCH) // timedelta(milliseconds=1)
    return [
        {"timestamp": timestamp, "model": prize["model"], "prize": prize["prize"]}
        for prize in prizes(checkpoint, total_prize)
    ]


def confirm_checkpoint(session: Session, checkpoint_id: str, tx_hash: str, mover: Mover, now: datetime) -> Record:
    """PENDING to SUBMITTED, with the transaction that put it on the chain. The caller commits.

    The move leaves a row in `checkpoint_moves`. The same transaction confirmed again changes nothing and is no error.

    Raises:
        UnknownCheckpointError: no such checkpoint.
        IllegalMoveError: it is not PENDING, and another transaction confirmed it.
    """
    target = CheckpointStatus.SUBMITTED
    moved = _move(session, checkpoint_id, target, mover, {"tx_hash": tx_hash, "submitted_at": now})
    checkpoint = _found(session, checkpoint_id)
    if not moved and checkpoint["tx_hash"] != tx_hash:
        _refuse(checkpoint, target)
    return checkpoint


def advance_checkpoint(
    session: Session, checkpoint_id: str, target: CheckpointStatus, mover: Mover, now: datetime
) -> Record:
    """One step forward, which leaves a row in `checkpoint_moves`. The caller commits.

    Raises:
        UnknownCheckpointError: no such checkpoint.
        IllegalMoveError: its status does not lead to `target`.
    """
    values = {"submitted_at": now} if target is CheckpointStatus.SUBMITTED else {}
    moved = _move(session, checkpoint_id, target, mover, values)
    checkpoint = _found(session, checkpoint_id)
    if not moved:
        _refuse(checkpoint, target)
    return checkpoint


def _move(
    session: Session, checkpoint_id: str, target: CheckpointStatus, mover: Mover, values: Mapping[str, Any]
) -> bool:
    """One conditional UPDATE, so that of two at once only one finds the status it needs."""
    session.connection().execute(_SAY_WHO, {"who": mover.who, "request_id": mover.request_id})
    row = CheckpointRow
    sources = [source.value for source, targets in CHECKPOINT_MOVES.items() if target in targets]
    move = (
        update(row)
        .where(col(row.id) == checkpoint_id, col(row.status).in_(sources))
        .values(status=target.value, **values)
        .returning(col(row.id))
    )
    moved = session.connection().execute(move).first() is not None
    if moved:
        notify(session, CHECKPOINTS)
    return moved


def _found(session: Session, checkpoint_id: str) -> Record:
    checkpoint = checkpoint_by_id(session.connection(), checkpoint_id)
    if checkpoint is None:
        raise UnknownCheckpointError(checkpoint_id)
    return checkpoint


def _refuse(checkpoint: Record, target: CheckpointStatus) -> None:
    what, current = f"checkpoint {checkpoint['id']}", CheckpointStatus(checkpoint["status"])
    check_move(CHECKPOINT_MOVES, what, current, target)
    # Only a status set back by hand between the two statements gets here.
    raise IllegalMoveError(what, current.value, target.value, frozenset(s.value for s in CHECKPOINT_MOVES[current]))


def _rewards_by_model(checkpoint: Record, emission: RetainingEmission) -> list[tuple[str, int]]:
    """Each rewarded model once, with its share, in rank order, whatever the order and repetitions of the emission."""
    meta = checkpoint["meta"]
    ranking = meta.get("ranking") if isinstance(meta, Mapping) else None
    totals: dict[str, int] = {}
    for reward in sorted(emission["cruncher_rewards"], key=itemgetter("cruncher_index")):
        model = _ranked_model(checkpoint["id"], ranking, reward["cruncher_index"])
        totals[model] = totals.get(model, 0) + reward["reward_pct"]
    return list(totals.items())


def _ranked_model(checkpoint_id: str, ranking: Any, index: int) -> str:
    if isinstance(ranking, list) and 0 <= index < len(ranking) and isinstance(ranking[index], Mapping):
        model_id = ranking[index].get("model_id")
        if isinstance(model_id, str):
            return model_id
    raise UnusableCheckpointError(
        f"checkpoint {checkpoint_id}: meta.ranking names no model for cruncher_index {index}: who is paid is unknown"
    )


def _percentages(rewards: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Shares in frac64 as percentages, exact to their seventh decimal; what has several shares gets their sum."""
    totals: dict[str, int] = {}
    for name, share in rewards:
        totals[name] = totals.get(name, 0) + share
    return {name: total * 100 / FRAC_64_MULTIPLIER for name, total in totals.items()}


def reward_shares(checkpoint: Record) -> dict[int, float] | None:
    """What each index of the ranking was rewarded, as a percentage (0-100); None where there is no emission to read."""
    try:
        emission = emission_in(checkpoint)
    except UnusableCheckpointError:
        return None
    shares: dict[int, float] = {}
    for reward in emission["cruncher_rewards"]:
        index = reward["cruncher_index"]
        shares[index] = shares.get(index, 0.0) + reward["reward_pct"] * 100 / FRAC_64_MULTIPLIER
    return shares
