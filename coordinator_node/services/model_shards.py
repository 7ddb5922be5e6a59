"""The models there are, the shard that each belongs to, and the calls that say which of them are to be asked.

Apart from the predict stage's own modules, so that whoever only writes down what is to be asked loads no gRPC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from coordinator_node.db.tables import SlotCallRow

SHARDS = 12
SHARD_NAMES = tuple(f"predict/{number:02}" for number in range(SHARDS))
UNCLAIMED = 0

# A model that has been away for so long is taken to be withdrawn: no more ABSENT rows are written for it.
WITHDRAWN_AFTER = timedelta(hours=24)

_KNOWN = text("SELECT id FROM models WHERE presence = 'PRESENT' OR presence_since > :withdrawn")


def shard_of(model_id: str) -> str:
    """The shard that a model belongs to."""
    digest = hashlib.sha256(model_id.encode()).digest()
    return SHARD_NAMES[int.from_bytes(digest[:8]) % SHARDS]


def known_models(session: Session, now: datetime) -> dict[str, list[str]]:
    """The models that are to be asked, by shard: those present, and those that have not been away for long."""
    shards: dict[str, list[str]] = {}
    for model_id in session.connection().execute(_KNOWN, {"withdrawn": now - WITHDRAWN_AFTER}).scalars():
        shards.setdefault(shard_of(model_id), []).append(model_id)
    return shards


def write_calls(session: Session, slot_id: str, models_of_shards: Mapping[str, list[str]], now: datetime) -> None:
    """Write down whom to ask: for each shard that has models a call, claimed by nobody yet."""
    calls = [
        {
            "slot_id": slot_id,
            "lease_name": shard,
            "epoch": UNCLAIMED,
            "model_ids_jsonb": sorted(model_ids),
            "called_at": now,
        }
        for shard, model_ids in models_of_shards.items()
    ]
    session.connection().execute(insert(SlotCallRow), calls)
