"""A document's keys come in the order in which the database gives them back."""

from __future__ import annotations

import json
import random

from sqlalchemy import Engine, text

from coordinator_node.backtest.stored import as_stored

LETTERS = ["a", "b", "B", "_", "é", "ß", "日", "😀", "1"]


def test_keys_are_ordered_as_jsonb_orders_them(engine: Engine) -> None:
    rng = random.Random(5)
    documents = [
        {"".join(rng.choices(LETTERS, k=rng.randint(0, 4))): n for n in range(rng.randint(0, 8))} for _ in range(200)
    ]
    read = text("SELECT CAST(document AS text) FROM unnest(CAST(:documents AS jsonb[])) AS document")
    with engine.connect() as connection:
        stored = connection.execute(read, {"documents": [json.dumps(document) for document in documents]}).scalars()
        assert [list(json.loads(document)) for document in stored] == [list(as_stored(d)) for d in documents]
