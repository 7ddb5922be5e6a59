#!/usr/bin/env python3
"""Checks what a competition paid, from what its report API publishes. Needs Python 3.11 or later, and requests.

    python verify.py --url http://host:8000 [--checkpoint ID]

Recomputes hashes, proofs, chains, the sums of snapshots, the ranking and the emission, and prints what it checked.
Exit codes: 0 all of it holds; 1 the first lie, named; 2 the API cannot be asked.
`coordinator-node verify` is this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import requests

DEFAULT = "default"
WHOLE = 1_000_000_000
TIERS = (35, 10, 10, 10, 10, 5, 5, 5, 5, 5)
SECONDS = 60
PAGE = 1000
MICROSECOND = timedelta(microseconds=1)
ENSEMBLE = "__ensemble_"


class LieError(Exception):
    """What is published contradicts itself; the message says what does."""


class UnreachableError(Exception):
    """The API did not give what is needed; the message says what to do."""


# Canonical JSON (RFC 8785) and the Merkle tree (RFC 9162)


def number_text(number: float) -> str:
    """A number as ECMAScript writes the double nearest to it."""
    text = repr(float(number))
    if "e" not in text:
        return "0" if text == "-0.0" else text[:-2] if text.endswith(".0") else text
    sign = "-" if text[0] == "-" else ""
    mantissa, exponent = text.lstrip("-").split("e")
    digits, point = mantissa.replace(".", ""), int(exponent) + 1
    if 0 < point <= 21:
        return sign + digits.ljust(point, "0")
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def canonical(value: Any) -> str:
    """The value as canonical JSON."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: str(key).encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if is_number(value):
        return number_text(value)
    return json.dumps(value, ensure_ascii=False)


def leaf(content: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + content).digest()


def leaf_of(document: Any) -> bytes:
    """The hash of a document's leaf."""
    return leaf(canonical(document).encode())


def pair(left: bytes, right: bytes) -> bytes:
    """The hash of two nodes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(row: Sequence[bytes]) -> bytes:
    """The root over leaves; a node without a sibling moves up as it is."""
    if not row:
        return hashlib.sha256().digest()
    while len(row) > 1:
        joined = [pair(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        row = [*joined, row[-1]] if len(row) % 2 else joined
    return row[0]


def climb(start: bytes, path: Iterable[Any]) -> bytes:
    """Where the steps of a path lead."""
    for step in path:
        sibling = bytes.fromhex(step["hash"])
        start = pair(sibling, start) if step["position"] == "left" else pair(start, sibling)
    return start


def moment(text: str) -> datetime:
    """A time of the API."""
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def stamp(text: str) -> str:
    """A time in the one form that is hashed."""
    return moment(text).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


# What is downloaded


class Api:
    """The public endpoints of one competition."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()

    def get(self, path: str, **params: Any) -> Any:
        """The body of an answer.

        Raises:
            UnreachableError: there is none, or it is an error.
        """
        try:
            answer = self._session.get(f"{self._url}/reports/{path}", params=params, timeout=SECONDS)
            if answer.status_code != 200:
                raise UnreachableError(f"GET {answer.url} answers {answer.status_code}: {answer.text[:200]}")
            return answer.json()
        except (requests.RequestException, ValueError) as error:
            raise UnreachableError(f"{self._url} cannot be asked: {error}") from error

    def evidence(self, checkpoint: str | None) -> Iterator[Any]:
        """The pages of a checkpoint's evidence; the newest checkpoint's for None."""
        page = self.get(f"evidence/{checkpoint or 'latest'}")
        yield page
        while page["next"]:
            page = self.get(f"evidence/{page['checkpoint']['id']}", cursor=page["next"])
            yield page

    def commitments(self, after: int) -> Iterator[Any]:
        """The chain of commitments behind a position."""
        while True:
            rows = self.get("merkle/commitments", after=after, limit=PAGE)
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1]["position"]


# What is checked


class Verification:
    """The check of one checkpoint: `page` takes the pages in order, `conclude` checks what they make together."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.checkpoint: Any = None
        self.counts: Counter[str] = Counter()
        self.not_recomputed: list[str] = []
        self.snapshots: list[Any] = []
        self._cycles: list[Any] = []
        self._open: dict[str, list[Any]] = {}
        self._predictions: dict[str, list[Any]] = defaultdict(list)
        self._commitments: dict[str, Any] = {}
        self._first_counted: dict[str, Any] = {}
        self._first_cycle: Any = None
        self._last_cycle: Any = None
        self._cycle_of: dict[str, Any] = {}
        self._head: str | None = None
        self._covered_roots: list[bytes] = []
        self._rescored: set[str] = set()
        self._shown_of: dict[str, set[str]] = defaultdict(set)
        self._counted_once: set[str] = set()
        self._counted_ids: dict[str, list[str]] = {}

    def page(self, page: Any) -> None:
        """Check what is complete with this page."""
        if self.checkpoint is not None and page["checkpoint"] != self.checkpoint:
            raise LieError(f"checkpoint {self.checkpoint['id']} is another on another page of its evidence")
        self.checkpoint = page["checkpoint"]
        for commitment in page["commitments"]:
            self._check_commitment(commitment)
        self._cycles += page["cycles"]
        for cycle in page["cycles"]:
            self._open[cycle["id"]] = []
        for snapshot in page["snapshots"]:
            if rescore_of(snapshot):
                self._rescored.add(snapshot["id"])
            if snapshot["cycle_id"] is None:
                self.counts["snapshots outside the log, taken as they are shown"] += 1
                self.snapshots.append(snapshot)
            else:
                self._open[snapshot["cycle_id"]].append(snapshot)
        for one in page["predictions"]:
            self._check_prediction(one, page["ground_truths"])
            self._predictions[one["snapshot_id"]].append(one)
        # The last cycle may go on in the next page.
        while len(self._cycles) > (1 if page["next"] else 0):
            self._close(self._cycles.pop(0))

    def conclude(self) -> None:
        """Check the checkpoint itself, once all pages are in."""
        merkle, rules = self.checkpoint["meta"]["merkle"], self.checkpoint["meta"]["rules"]
        reached = self._last_cycle["position"] if self._last_cycle else None
        if self._last_cycle and reached != merkle["last_position"]:
            raise LieError(f"the cycles end at {reached}: the checkpoint saw those up to {merkle['last_position']}")
        self._check_first_cycle(rules)
        self._check_superseded(merkle["generation"])
        self._check_periods(self._check_previous(merkle))
        self._check_root(merkle)
        self._check_commitment_chain()
        check_emission(self.checkpoint, rules)
        if rules["build_emission"] != DEFAULT:
            self.not_recomputed.append(f"the emission, which {rules['build_emission']} made; its sums are right")
        if rules["aggregate_snapshot"] != DEFAULT:
            self.not_recomputed.append(
                f"the snapshots' sums, which {rules['aggregate_snapshot']} makes; counts are right"
            )
        if rules["metrics"]:
            self.not_recomputed.append(f"the metrics {', '.join(rules['metrics'])}")
        self.not_recomputed += check_ranking(self.checkpoint, rules, self.snapshots)
        self.not_recomputed.append(f"each score from its ground truth, which {rules['scoring_function']} does")

    def _check_superseded(self, generation: int) -> None:
        """A snapshot does not count if, and only if, a rescore before the checkpoint stands in for it in the log."""
        by_id = {row["id"]: row for row in self.snapshots}
        superseded: dict[str, int] = {}
        for row in self.snapshots:
            rescored = rescore_of(row)
            if rescored is None:
                continue
            name = f"snapshot {row['id']} of model {row['model_id']}"
            if rescored["generation"] > generation or rescored["replaces"] in superseded:
                raise LieError(f"{name}: it cannot stand in for snapshot {rescored['replaces']}")
            superseded[rescored["replaces"]] = rescored["generation"]
            self._check_replacement(row, by_id.get(rescored["replaces"]), name)
            self.counts["snapshots of scores that were made again"] += 1
        for row in self.snapshots:
            if row["superseded_by"] != superseded.get(row["id"]):
                raise LieError(
                    f"snapshot {row['id']} of model {row['model_id']}: it is shown as superseded by generation"
                    f" {row['superseded_by']}, by the log it is {superseded.get(row['id'])}"
                )

    def _check_replacement(self, row: Any, replaced: Any, name: str) -> None:
        """It counts what the one that it replaces counted, in its place; that may be older than what is shown."""
        if replaced is None:
            return
        same = ("model_id", "period_start", "period_end")
        due = [one["prediction_count"] + missing_count(one) for one in (row, replaced)]
        late = [one["meta"].get("late") for one in (row, replaced)]
        ids = [self._counted_ids.get(one["id"]) for one in (row, replaced)]
        if any(row[field] != replaced[field] for field in same) or due[0] != due[1] or late[0] != late[1]:
            raise LieError(f"{name}: it is of another time, or counts others, than snapshot {replaced['id']} had")
        if None not in ids and ids[0] != ids[1]:
            raise LieError(f"{name}: it does not count the predictions that snapshot {replaced['id']} counted")

    def _check_first_cycle(self, rules: Any) -> None:
        """The cycles begin with the chain, or with one that the ranking does not look back to."""
        first = self._first_cycle
        if first is None or first["previous_cycle_id"] is None:
            return
        start, end = moment(self.checkpoint["period_start"]), moment(self.checkpoint["period_end"])
        after = min(start - MICROSECOND, hours_before(end, hours_ranked_by(rules)))
        own = [row for row in self.snapshots if row["cycle_id"] == first["id"]]
        if first["covered"] or any(after < moment(row["period_end"]) < end for row in own):
            raise LieError(
                f"the cycles shown begin with {first['id']} at place {first['position']}: the ranking looks back to it,"
                " so that the one before must be shown"
            )

    def _check_periods(self, before: Any) -> None:
        """Every snapshot counts where its time says, and those that count here do so with their predictions."""
        start, end = moment(self.checkpoint["period_start"]), moment(self.checkpoint["period_end"])
        seen = (before["meta"]["merkle"]["last_position"] or 0) if before else 0
        logged = [row for row in self.snapshots if row["cycle_id"] is not None]
        # What a cycle holds of a longer interval's period may end on both sides: that checkpoint covers it all.
        of_before = {row["cycle_id"] for row in logged if moment(row["period_end"]) < start}
        for row in logged:
            cycle, name = self._cycle_of[row["cycle_id"]], f"snapshot {row['id']} of model {row['model_id']}"
            if cycle["covered"]:
                check_period(row, start if before else None, name)
            elif moment(row["period_end"]) < end and not (cycle["position"] <= seen and cycle["id"] in of_before):
                raise LieError(f"{name} ends before this checkpoint, which does not cover its cycle {cycle['id']}")

    def _check_previous(self, merkle: Any) -> Any:
        """The period begins where that of the checkpoint before ends, whose root is named; returns that checkpoint."""
        if merkle["previous_checkpoint_id"] is None:
            return None
        before = self._api.get(f"evidence/{merkle['previous_checkpoint_id']}")["checkpoint"]
        named = f"checkpoint {self.checkpoint['id']}: the one before, {before['id']},"
        if before["merkle_root"] != merkle["previous_root"]:
            raise LieError(f"{named} has another root than it names")
        if moment(before["period_end"]) != moment(self.checkpoint["period_start"]):
            raise LieError(f"{named} ends at {before['period_end']}, not where its period begins")
        first = before["meta"]["ties"]
        changed = [model for model, at in self.checkpoint["meta"]["ties"].items() if first.get(model, at) != at]
        if changed:
            raise LieError(f"{named} says that model {changed[0]} was first scored at another time")
        return before

    def _check_root(self, merkle: Any) -> None:
        checkpoint = self.checkpoint
        cycles_root = root_of(self._covered_roots)
        if len(self._covered_roots) != merkle["cycle_count"] or cycles_root.hex() != merkle["cycles_root"]:
            raise LieError(
                f"checkpoint {checkpoint['id']}: its {merkle['cycle_count']} cycles are not the"
                f" {len(self._covered_roots)} that are shown"
            )
        covered = {name: value for name, value in merkle.items() if name != "root"}
        header = {
            "version": 1,
            "kind": "checkpoint",
            "id": checkpoint["id"],
            "period_start": stamp(checkpoint["period_start"]),
            "period_end": stamp(checkpoint["period_end"]),
            "created_at": stamp(checkpoint["created_at"]),
            "entries": checkpoint["entries"],
            "meta": {**checkpoint["meta"], "merkle": covered},
        }
        root = pair(leaf_of(header), cycles_root).hex()
        if root == checkpoint["merkle_root"] == merkle["root"]:
            return
        raise LieError(
            f"checkpoint {checkpoint['id']}: its period, times, emission, ranking or rules are not what its root covers"
            f"{self._what_is_wrong()}"
        )

    def _what_is_wrong(self) -> str:
        """What the checkpoint's own figures contradict, where they do."""
        rules = self.checkpoint["meta"]["rules"]
        try:
            check_emission(self.checkpoint, rules)
            check_ranking(self.checkpoint, rules, self.snapshots)
        except LieError as lie:
            return f": {lie}"
        return ""

    def _check_commitment(self, row: Any) -> None:
        if sealed_commitment(row) != row["chained_root"]:
            raise LieError(
                f"commitment {row['id']}: its time, count, place or root is not what its chained root covers"
            )
        self._commitments[row["id"]] = row

    def _check_commitment_chain(self) -> None:
        """Every commitment used is in the chain, before the head of it that the cycle names which counts it."""
        if not self._commitments:
            return
        for name, shown in self._shown_of.items():
            held = self._commitments[name]["prediction_count"]
            if len(shown) > held:
                raise LieError(f"commitment {name} holds {held} predictions: {len(shown)} are shown")
            self.counts["predictions of these commitments that this checkpoint does not count"] += held - len(shown)
        waiting: dict[int, Any] = {}
        for row in self._commitments.values():
            if waiting.setdefault(row["position"], row) is not row:
                raise LieError(f"commitment {row['id']} is at place {row['position']} of the chain, like another")
        place_of = self._places_in_chain(waiting)
        for name, row in self._commitments.items():
            cycle = self._first_counted[name]
            if row["position"] > place_of.get(cycle["commitments_root"], 0):
                raise LieError(f"commitment {name} is later than cycle {cycle['id']}, which counts what it holds")

    def _places_in_chain(self, waiting: dict[int, Any]) -> dict[str, int]:
        """Walk the chain from the first of these commitments to the head that the last cycle names: {root: place}."""
        previous: Any = None
        place_of: dict[str, int] = {}
        for row in self._api.commitments(min(waiting) - 1):
            if sealed_commitment(row) != row["chained_root"] or (
                previous
                and (row["previous_root"], row["position"]) != (previous["chained_root"], previous["position"] + 1)
            ):
                raise LieError(f"commitment {row['id']} does not follow the one before it in the chain")
            used = waiting.get(row["position"], row)
            if used["chained_root"] != row["chained_root"]:
                raise LieError(f"commitment {used['id']} is not the one at its place in the chain")
            place_of[row["chained_root"]] = row["position"]
            self.counts["links of the commitments' chain"] += 1
            if row["chained_root"] == self._head:
                return place_of
            previous = row
        raise LieError("the commitments' chain does not reach the root that the checkpoint's last cycle names")

    def _check_prediction(self, one: Any, truths: Any) -> None:
        row, name = one["prediction"], f"prediction {one['prediction_id']}"
        if row is None:
            raise LieError(f"{name} is gone, which snapshot {one['snapshot_id']} counts")
        name = f"{name} of model {row['model_id']}"
        own = {
            "version": 1,
            **{field: row[field] for field in ("id", "input_id", "model_id", "scope_key", "scope", "output")},
            **{field: stamp(row[field]) for field in ("performed_at", "resolvable_at")},
        }
        hashed = leaf_of(own)
        if hashed.hex() != one["prediction_hash"] or row["id"] != one["prediction_id"]:
            raise LieError(f"{name}: its output, its times or its scope are not those that the log holds")
        if outcome_leaf(one, truths, rescored=one["snapshot_id"] in self._rescored).hex() != one["outcome_hash"]:
            raise LieError(f"{name}: its score, its ground truth or its status is not the one that the log holds")
        self.counts["predictions"] += 1
        if row["commitment_id"] is None:
            self.counts["scored predictions that were not committed"] += one["score"] is not None
            return
        self._check_committed(row, hashed, name)

    def _check_committed(self, row: Any, hashed: bytes, name: str) -> None:
        commitment = self._commitments.get(row["commitment_id"])
        if commitment is None or climb(hashed, row["commitment_path"]).hex() != commitment["root"]:
            raise LieError(f"{name}: it is not in the commitment {row['commitment_id']} that it names")
        in_time = moment(commitment["committed_at"]) < moment(row["resolvable_at"])
        if not in_time and (row["status"], row["failed_reason"]) != ("FAILED", "committed late"):
            raise LieError(
                f"{name}: it was committed at {commitment['committed_at']}, not before {row['resolvable_at']}"
            )
        self.counts["predictions committed before their outcome"] += in_time
        self._shown_of[row["commitment_id"]].add(row["id"])

    def _close(self, cycle: Any) -> None:
        snapshots = self._open.pop(cycle["id"])
        if [row["position"] for row in snapshots] != list(range(cycle["snapshot_count"])):
            raise LieError(
                f"cycle {cycle['id']}: {len(snapshots)} of its {cycle['snapshot_count']} snapshots are shown"
            )
        root = root_of([self._snapshot_leaf(row, cycle) for row in snapshots]).hex()
        if root != cycle["snapshots_root"]:
            raise LieError(f"cycle {cycle['id']}: its snapshots do not lead to its root")
        names = ("id", "position", "previous_cycle_id", "previous_cycle_root", "commitments_root", "snapshot_count")
        header = {
            "version": 1,
            "kind": "cycle",
            **{name: cycle[name] for name in (*names, "prediction_count")},
            "created_at": stamp(cycle["created_at"]),
        }
        if pair(leaf_of(header), bytes.fromhex(root)).hex() != cycle["chained_root"]:
            raise LieError(f"cycle {cycle['id']}: its time, counts or links are not what its chained root covers")
        self._check_link(cycle)
        if cycle["covered"]:
            self._covered_roots.append(bytes.fromhex(cycle["chained_root"]))
            self._head = cycle["commitments_root"]
        self.snapshots += snapshots
        self._first_cycle = self._first_cycle or cycle
        self._cycle_of[cycle["id"]] = cycle
        self.counts["cycles"] += 1

    def _check_link(self, cycle: Any) -> None:
        last, self._last_cycle = self._last_cycle, cycle
        if last is None:
            return
        if (cycle["previous_cycle_id"], cycle["previous_cycle_root"]) != (last["id"], last["chained_root"]):
            raise LieError(f"cycle {cycle['id']} does not follow cycle {last['id']} in the chain")

    def _snapshot_leaf(self, row: Any, cycle: Any) -> bytes:
        name = f"snapshot {row['id']} of model {row['model_id']}"
        if row["id"] is None:
            raise LieError(f"cycle {cycle['id']}: its snapshot at place {row['position']} is gone")
        document = {
            "version": 1,
            **{field: row[field] for field in ("id", "model_id", "prediction_count", "result_summary", "meta")},
            **{field: stamp(row[field]) for field in ("period_start", "period_end", "created_at")},
        }
        content = hashlib.sha256(canonical(document).encode()).digest()
        if content.hex() != row["content_hash"]:
            raise LieError(f"{name}: its sums or its times are not those that cycle {cycle['id']} covers")
        predictions_root = bytes.fromhex(row["predictions_root"])
        if cycle["covered"]:
            counted = self._predictions.pop(row["id"], [])
            hashes = [bytes.fromhex(one[kind]) for one in counted for kind in ("prediction_hash", "outcome_hash")]
            if root_of(hashes) != predictions_root:
                raise LieError(f"{name}: the predictions shown are not those that it counts, or not in their order")
            check_sums(row, counted, self.checkpoint["meta"]["rules"], name)
            for one in counted:
                self._first_counted.setdefault(one["prediction"]["commitment_id"], cycle)
            self._counted_ids[row["id"]] = sorted(one["prediction_id"] for one in counted)
            if not rescore_of(row):
                self._count_once(self._counted_ids[row["id"]], name)
        self.counts["snapshots"] += 1
        return pair(leaf(content), predictions_root)

    def _count_once(self, ids: Sequence[str], name: str) -> None:
        for prediction_id in ids:
            if prediction_id in self._counted_once:
                raise LieError(f"{name}: prediction {prediction_id} is counted twice")
            self._counted_once.add(prediction_id)


def sealed_commitment(row: Any) -> str:
    """The chained root that a commitment must have."""
    names = ("id", "position", "previous_root", "prediction_count")
    header = {
        "version": 1,
        "kind": "commitment",
        **{name: row[name] for name in names},
        "committed_at": stamp(row["committed_at"]),
    }
    return pair(leaf_of(header), bytes.fromhex(row["root"])).hex()


def outcome_leaf(one: Any, truths: Any, *, rescored: bool) -> bytes:
    """The leaf of what became of a prediction, by its first score or by that of a rescore."""
    row, score = one["prediction"], one["score"]
    truth = None if one["ground_truth"] is None else canonical(truths[one["ground_truth"]])
    status = row["status"] if score is None else "SCORED" if score["success"] else "FAILED"
    if rescored and score is not None:
        row = {**row, "status": status}  # a prediction keeps the status that its first score gave it
    document = {
        "version": 1,
        "prediction_id": one["prediction_id"],
        "status": status if status == row["status"] else f"{row['status']} instead of {status}",
        "failed_reason": row["failed_reason"] if score is None else score["failed_reason"],
        "result": None if score is None else score["result"] or {},
        "scored_at": None if score is None else stamp(score["scored_at"]),
        "ground_truth_hash": None if truth is None else hashlib.sha256(truth.encode()).hexdigest(),
    }
    return leaf_of(document)


def rescore_of(row: Any) -> Any:
    """Which generation a snapshot is of, and which snapshot it stands in for; None for one of first scores."""
    return None if row["cycle_id"] is None else (row["meta"] or {}).get("rescore")


def missing_count(row: Any) -> int:
    """How many failed or absent predictions a snapshot counts; the meta of one outside the log may say anything."""
    return 0 if row["cycle_id"] is None else int(row["meta"].get("missing_count") or 0)


def check_times(row: Any, counted: Sequence[Any], name: str) -> None:
    """A snapshot is of the time of its predictions, so that none is moved to another period.

    Raises:
        LieError: it is of another.
    """
    span = [(moment(one["prediction"]["performed_at"]), moment(one["prediction"]["resolvable_at"])) for one in counted]
    begins, ends = min(first for first, _ in span), max(last for _, last in span)
    if (begins, ends) != (moment(row["period_start"]), moment(row["period_end"])):
        raise LieError(f"{name} is of {row['period_start']} to {row['period_end']}: its predictions are of other times")


def check_period(row: Any, start: datetime | None, name: str) -> None:
    """A covered snapshot is of the checkpoint's period or a later one, or counts late in it.

    `start` is None for the first checkpoint: what ended before its period counts in none. What a rescore made is where
    that is which it stands in for.

    Raises:
        LieError: it is not, so that it would count nowhere, or elsewhere.
    """
    ends, late = moment(row["period_end"]), row["meta"].get("late")
    if late and ends >= moment(late["counts_in"]):
        raise LieError(f"{name} is said to be late for {late['counts_in']}: it is of a time after that")
    if rescore_of(row) or start is None:
        return
    if late and moment(late["counts_in"]) != start:
        raise LieError(f"{name} is said to count in {late['counts_in']}: it came when {start.isoformat()} was open")
    if not late and ends < start:
        raise LieError(f"{name} ended before {start.isoformat()} and is not said to be late: it counts nowhere")


def check_sums(row: Any, counted: Sequence[Any], rules: Any, name: str) -> None:
    """Recompute what a snapshot says of its predictions.

    Raises:
        LieError: a count or, where the engine's own means are taken, a mean is another.
    """
    models = {one["prediction"]["model_id"] for one in counted}
    if models - {row["model_id"]}:
        raise LieError(f"{name} counts predictions of model {next(iter(models - {row['model_id']}))}")
    check_times(row, counted, name)
    results = [one["score"]["result"] for one in counted if one["score"] and one["score"]["success"]]
    if len(results) != row["prediction_count"]:
        raise LieError(f"{name} counts {row['prediction_count']} scored predictions: there are {len(results)}")
    missing = missing_count(row)
    if len(counted) - len(results) != missing:
        raise LieError(f"{name} counts {missing} failed or absent predictions: there are {len(counted) - len(results)}")
    if rules["aggregate_snapshot"] == DEFAULT:
        check_means(row, results, rules, name)


def check_means(row: Any, results: Sequence[Any], rules: Any, name: str) -> None:
    """Recompute the engine's own means: those of the scores' numbers, and no other number to rank by.

    Raises:
        LieError: one is another, or there are none.
    """
    if "error" in row["meta"]:
        raise LieError(f"{name} has no sums: the mean of scores cannot fail as it says, {row['meta']['error']}")
    values: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for key, value in (result or {}).items():
            if is_number(value):
                values[key].append(float(value))
    summary = row["result_summary"]
    for key, found in values.items():
        if key not in rules["metrics"] and not is_mean(summary.get(key), found):
            mean = math.fsum(value / len(found) for value in found)
            raise LieError(f"{name} says {key} = {summary.get(key)}: the mean of its scores is {mean}")
    for key in {rules["value_field"], rules["ranking_key"]} - {*values, *rules["metrics"]}:
        if summary.get(key) is not None:
            raise LieError(f"{name} says {key} = {summary[key]}: none of its scores has one")


def is_mean(said: Any, found: Sequence[float]) -> bool:
    """Whether that is what the engine says of numbers whose mean it takes; null where their sum is beyond a double."""
    if not math.isfinite(sum(found)):
        return said is None
    return is_number(said) and math.isclose(math.fsum(found) / len(found), said, rel_tol=1e-9, abs_tol=1e-12)


def is_number(value: Any) -> bool:
    """Whether it is one in JSON."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_emission(checkpoint: Any, rules: Any) -> None:
    """Recompute the emission of the default tiers; of another strategy's, check that it sums and points to the ranking.

    Raises:
        LieError: a reward is another.
    """
    [emission] = checkpoint["entries"]
    ranking, rewards = checkpoint["meta"]["ranking"], emission["cruncher_rewards"]
    check_shares(emission, len(ranking))
    if rules["build_emission"] != DEFAULT:
        return
    for index, due in enumerate(tier_rewards(len(ranking))):
        paid = sum(reward["reward_pct"] for reward in rewards if reward["cruncher_index"] == index)
        if paid != due:
            raise LieError(
                f"the emission pays {paid} to {ranking[index]['model_id']} (rank {index + 1}): the tiers give {due}"
            )
    for kind in ("compute_provider", "data_provider"):
        due_to = [{"provider": rules[kind], "reward_pct": WHOLE}] if rules[kind] and ranking else []
        if emission[f"{kind}_rewards"] != due_to:
            raise LieError(f"the emission's {kind}_rewards are not {due_to}")
    if emission.get("retained_pct", 0):
        raise LieError(f"the emission retains {emission['retained_pct']} of the pool: the tiers retain nothing")
    if emission["crunch"] != rules["crunch"]:
        raise LieError(f"the emission is of {emission['crunch']!r}, not of {rules['crunch']!r}")


def check_shares(emission: Any, ranked: int) -> None:
    """Whatever the strategy, shares are integers that sum exactly, and each is of another ranked model.

    Raises:
        LieError: one is not.
    """
    rewards = emission["cruncher_rewards"]
    for name in ("cruncher_rewards", "compute_provider_rewards", "data_provider_rewards"):
        total = sum(reward["reward_pct"] for reward in emission[name])
        if emission[name] and total != WHOLE:
            raise LieError(f"the emission's {name} sum to {total}, not to {WHOLE}")
        if any(type(reward["reward_pct"]) is not int or reward["reward_pct"] < 0 for reward in emission[name]):
            raise LieError(f"the emission's {name} hold what is no share: an integer of 0 or more")
    twice = [index for index, count in Counter(reward["cruncher_index"] for reward in rewards).items() if count > 1]
    if twice:
        raise LieError(f"the emission pays cruncher_index {twice[0]} twice")
    unknown = [reward for reward in rewards if reward["cruncher_index"] not in range(ranked)]
    if unknown:
        raise LieError(
            f"the emission pays cruncher_index {unknown[0]['cruncher_index']}, which the ranking does not have"
        )
    retained = emission.get("retained_pct", 0)
    if type(retained) is not int or not 0 <= retained <= WHOLE:
        raise LieError(f"the emission's retained_pct is {retained}: it is a share of the pool")


def tier_rewards(count: int) -> list[int]:
    """The default tiers for so many ranked models, by the largest-remainder method."""
    if not count:
        return []
    tiers = [*TIERS[:count], *[0] * (count - len(TIERS))]
    shares = [tier * count + 100 - sum(tiers) for tier in tiers]
    quotas = [divmod(share * WHOLE, sum(shares)) for share in shares]
    units = [whole for whole, _ in quotas]
    largest = sorted(range(count), key=lambda index: (-quotas[index][1], index))
    for index in largest[: WHOLE - sum(units)]:
        units[index] += 1
    return units


def check_ranking(checkpoint: Any, rules: Any, snapshots: Sequence[Any]) -> list[str]:
    """Recompute the ranking from the snapshots; returns what could not be.

    Raises:
        LieError: a model stands at another place, or was counted otherwise.
    """
    start, end = moment(checkpoint["period_start"]), moment(checkpoint["period_end"])
    before = [row for row in snapshots if moment(row["period_end"]) < end and row["superseded_by"] is None]
    counted: dict[str, list[Any]] = defaultdict(list)
    for row in before:
        if row["prediction_count"] > 0 and counts_in(row, start):
            counted[row["model_id"]].append(row)
    ranking = checkpoint["meta"]["ranking"]
    for place, entry in enumerate(ranking):
        if entry["model_id"].startswith(ENSEMBLE) or entry["model_id"] in [one["model_id"] for one in ranking[:place]]:
            raise LieError(f"the ranking has {entry['model_id']}, which is an ensemble or stands there twice")
        own = counted.get(entry["model_id"], [])
        found = (sum(row["prediction_count"] for row in own), len(own))
        if not own or found != (entry["prediction_count"], entry["snapshot_count"]):
            raise LieError(
                f"the ranking says that model {entry['model_id']} had {entry['prediction_count']} scored predictions in"
                f" {entry['snapshot_count']} snapshots: it had {found[0]} in {found[1]}"
            )
    if rules["leaderboard_ranker"] != DEFAULT:
        return [f"the order of the ranking, which {rules['leaderboard_ranker']} makes"]
    values = ranked_values(rules, before, end)
    ties = checkpoint["meta"]["ties"]
    sign = 1 if rules["ranking_direction"] == "asc" else -1
    may_rank = [m for m in counted if values.get(m) is not None and not m.startswith(ENSEMBLE)]
    due = sorted(may_rank, key=lambda m: (sign * (values[m] or 0.0), stamp(ties[m]) if ties.get(m) else "~", m))
    for place in range(max(len(due), len(ranking))):
        said = ranking[place]["model_id"] if place < len(ranking) else "nobody"
        must = due[place] if place < len(due) else "nobody"
        if said != must or ranking[place]["rank"] != place + 1:
            raise LieError(f"rank {place + 1} is {said}: by {rules['ranking_key']} it must be {must}")
        shown = ranking[place]["result_summary"].get(rules["ranking_key"])
        if shown != values[must]:
            raise LieError(f"the ranking says {rules['ranking_key']} = {shown} of model {must}: it is {values[must]}")
    return []


def counts_in(row: Any, start: datetime) -> bool:
    """Whether a snapshot that ends before the period's end is of the period."""
    late = (row["meta"] or {}).get("late")
    return moment(late["counts_in"]) == start if late else moment(row["period_end"]) >= start


def ranked_values(rules: Any, before: Sequence[Any], end: datetime) -> dict[str, float | None]:
    """By what each model is ranked: its mean over the window that ranks, or its newest snapshot's metric."""
    hours = rules["windows"].get(rules["ranking_key"])
    counting = hours or max(rules["windows"].values(), default=None)
    weights = {model: weight for model, (_, weight, _) in window_sums(rules, before, end, counting).items()}
    if hours is not None:
        values = {
            model: mean(*sums, rules["missing_score"]) for model, sums in window_sums(rules, before, end, hours).items()
        }
    else:
        after = hours_before(end, rules.get("metrics_window_hours"))  # whoever has gone since is not ranked by it
        recent = [row for row in before if moment(row["period_end"]) > after]
        newest = sorted(recent, key=lambda row: (moment(row["period_end"]), moment(row["created_at"]), row["id"]))
        summaries = {row["model_id"]: row["result_summary"] or {} for row in newest if row["prediction_count"]}
        found = {model: summary.get(rules["ranking_key"]) for model, summary in summaries.items()}
        values = {model: value if is_number(value) else None for model, value in found.items()}
    least = rules["min_predictions"]
    return {model: value for model, value in values.items() if not least or weights.get(model, 0) >= least}


def hours_before(end: datetime, hours: int | None) -> datetime:
    """So many hours before a period's last microsecond; the first moment there is for None, or for more than that."""
    first = datetime.min.replace(tzinfo=UTC)
    try:
        return first if hours is None else end - MICROSECOND - timedelta(hours=hours)
    except OverflowError:
        return first


def hours_ranked_by(rules: Any) -> int:
    """The window that ranks; where a metric does, its own and the one that `min_predictions` is counted in."""
    windows = rules["windows"]
    if rules["ranking_key"] in windows:
        return int(windows[rules["ranking_key"]])
    counted_in = max(windows.values(), default=0) if rules["min_predictions"] else 0
    return int(max(counted_in, rules.get("metrics_window_hours", 0)))


def window_sums(
    rules: Any, before: Sequence[Any], end: datetime, hours: int | None
) -> dict[str, tuple[Fraction, int, int]]:
    """For each model the exact sum of values times their predictions, that of predictions, and that of missing ones."""
    after = hours_before(end, hours)
    sums: dict[str, tuple[Fraction, int, int]] = {}
    for row in before:
        if moment(row["period_end"]) <= after:
            continue
        total, weight, missing = sums.get(row["model_id"], (Fraction(0), 0, 0))
        value, count = (row["result_summary"] or {}).get(rules["value_field"]), row["prediction_count"]
        if is_number(value):
            total, weight = total + Fraction(repr(value)) * count, weight + count
        sums[row["model_id"]] = total, weight, missing + missing_count(row)
    return sums


def mean(total: Fraction, weight: int, missing: int, missing_score: float | None) -> float | None:
    """The weighted mean, rounded once; None of nothing."""
    if missing_score is not None:
        total, weight = total + Fraction(repr(missing_score)) * missing, weight + missing
    return float(total / weight) if weight else None


def verify(url: str, checkpoint: str | None = None) -> Verification:
    """Check a checkpoint, the newest one for None.

    Raises:
        LieError: what is published contradicts itself.
        UnreachableError: the API cannot be asked.
    """
    api = Api(url)
    verification = Verification(api)
    try:
        for page in api.evidence(checkpoint):
            verification.page(page)
        verification.conclude()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise LieError(f"the evidence is not whole: {type(error).__name__}: {error}") from error
    return verification


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Check what a competition paid, from what it publishes.")
    parser.add_argument("--url", required=True, help="the report API, such as http://host:8000")
    parser.add_argument("--checkpoint", metavar="ID", help="default: the newest")
    given = parser.parse_args(arguments)
    try:
        done = verify(given.url, given.checkpoint)
    except UnreachableError as error:
        print(error, file=sys.stderr)
        return 2
    except LieError as lie:
        print(f"LIE: {lie}", file=sys.stderr)
        return 1
    checkpoint = done.checkpoint
    print(f"checkpoint {checkpoint['id']}, {checkpoint['period_start']} to {checkpoint['period_end']}")
    for what, count in sorted(done.counts.items()):
        print(f"  {count:,} {what}")
    models = len(checkpoint["meta"]["ranking"])
    print("checked: hashes, proofs, both chains, the snapshots' sums, the ranking and the emission")
    print(f"  {models:,} ranked models; root {checkpoint['merkle_root']}")
    for what in done.not_recomputed:
        print(f"not recomputed: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
