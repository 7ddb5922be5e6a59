"""A stranger checks a payout over a real socket: the truth holds, and each lie is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from api_cases import Client, report_app, running
from builders import one, rows
from evidence_cases import VERIFY, Competition, verifier
from sqlalchemy import Engine, text

import coordinator_node
from coordinator_node.db.engine import make_engine
from coordinator_node.db.reports import evidence
from coordinator_node.entities.emission import FRAC_64_MULTIPLIER, emission_of
from coordinator_node.merkle import verify_proof
from coordinator_node.merkle.canonical import canonical_bytes
from coordinator_node.merkle.tree import ProofStep, leaf_hash

verify = verifier()
P = "p-1-m2"
SNAPSHOT_OF_P = f"(SELECT snapshot_id FROM scores WHERE prediction_id = '{P}')"
CYCLE_OF_P = f"(SELECT cycle_id FROM snapshots WHERE id = {SNAPSHOT_OF_P})"
FIRST_CHECKPOINT = "(SELECT id FROM checkpoints ORDER BY period_end LIMIT 1)"
TABLES = (
    "predictions",
    "scores",
    "inputs",
    "snapshots",
    "checkpoints",
    "merkle_cycles",
    "merkle_nodes",
    "merkle_commitments",
    "merkle_counted",
)


def swap(table: str, column: str, key: str, first: str, second: str) -> str:
    return (
        f"UPDATE {table} AS one SET {column} = other.{column} FROM {table} AS other"
        f" WHERE (one.{key}, other.{key}) IN (('{first}', '{second}'), ('{second}', '{first}'))"
    )


def swapped_in(path: str, document: str) -> str:
    """The statement's expression that swaps the first two entries of a list in a document."""
    first, second = (f"'{{{path},{index}}}'" for index in (0, 1))
    return f"jsonb_set(jsonb_set({document}, {first}, {document} #> {second}), {second}, {document} #> {first})"


LIES = {
    "one score": (
        f"UPDATE scores SET result_jsonb = jsonb_set(result_jsonb, '{{value}}', '99') WHERE prediction_id = '{P}'",
        "prediction p-1-m2 of model m2: its score",
    ),
    "the time of a score": (
        f"UPDATE scores SET scored_at = scored_at + interval '1 microsecond' WHERE prediction_id = '{P}'",
        "prediction p-1-m2 of model m2: its score",
    ),
    "a ground truth": (
        "UPDATE inputs SET actuals_jsonb = jsonb_set(actuals_jsonb, '{profit}', '1') WHERE id = 'input-1'",
        "prediction p-1-m[123] of model m[123]: its score, its ground truth",
    ),
    "one output": (
        f"UPDATE predictions SET inference_output_jsonb = jsonb_set(inference_output_jsonb, '{{value}}', '0.2499999')"
        f" WHERE id = '{P}'",
        "prediction p-1-m2 of model m2: its output",
    ),
    "one time": (
        f"UPDATE predictions SET performed_at = performed_at - interval '1 microsecond' WHERE id = '{P}'",
        "prediction p-1-m2 of model m2: its output, its times",
    ),
    "whether it counts": (
        f"UPDATE predictions SET status = 'FAILED' WHERE id = '{P}'",
        "prediction p-1-m2 of model m2: its score",
    ),
    "the predictions of two models swapped": (
        swap("predictions", "inference_output_jsonb", "id", P, "p-1-m3"),
        "prediction p-1-m[23] of model m[23]: its output",
    ),
    "two of a snapshot's predictions swapped": (
        "UPDATE merkle_counted SET prediction_ids_jsonb = "
        "jsonb_build_array(prediction_ids_jsonb -> 1, prediction_ids_jsonb -> 0) || (prediction_ids_jsonb - 0 - 0),"
        " leaves = substring(leaves from 65 for 64) || substring(leaves from 1 for 64) || substring(leaves from 129)"
        " WHERE snapshot_id = (SELECT snapshot_id FROM merkle_counted JOIN merkle_nodes USING (snapshot_id)"
        " WHERE jsonb_array_length(prediction_ids_jsonb) >= 2 ORDER BY merkle_nodes.created_at LIMIT 1)",
        "snapshot .* the predictions shown are not those that it counts, or not in their order",
    ),
    "a prediction removed": (f"DELETE FROM predictions WHERE id = '{P}'", "prediction p-1-m2 is gone"),
    "a score removed": (f"DELETE FROM scores WHERE prediction_id = '{P}'", "prediction p-1-m2 of model m2: its score"),
    "a prediction that is no longer counted": (
        f"UPDATE merkle_counted SET prediction_ids_jsonb = prediction_ids_jsonb - '{P}',"
        f" leaves = substring(leaves from 1 for 64) WHERE snapshot_id = {SNAPSHOT_OF_P}",
        "snapshot .* of model m2: the predictions shown are not those that it counts",
    ),
    "one snapshot": (
        "UPDATE snapshots SET result_summary_jsonb = jsonb_set(result_summary_jsonb, '{value}', '5')"
        f" WHERE id = {SNAPSHOT_OF_P}",
        "snapshot .* of model m2: its sums or its times",
    ),
    "the time of a snapshot": (
        f"UPDATE snapshots SET period_start = period_start - interval '1 s' WHERE id = {SNAPSHOT_OF_P}",
        "snapshot .* of model m2: its sums or its times",
    ),
    "a snapshot removed": (
        f"DELETE FROM snapshots WHERE id = {SNAPSHOT_OF_P}",
        "cycle .*: its snapshot at place 1 is gone",
    ),
    "a snapshot's leaf removed": (
        f"DELETE FROM merkle_nodes WHERE snapshot_id = {SNAPSHOT_OF_P}",
        "cycle .*: 2 of its 3 snapshots are shown",
    ),
    "a cycle removed": (
        f"DELETE FROM merkle_cycles WHERE id = {CYCLE_OF_P}",
        "cycle .* does not follow cycle|cycles are not",
    ),
    "the last cycle removed": (
        "DELETE FROM merkle_cycles WHERE position = (SELECT max(position) FROM merkle_cycles)",
        "the cycles end at|does not follow",
    ),
    "the time of a cycle": (
        f"UPDATE merkle_cycles SET created_at = created_at + interval '1 s' WHERE id = {CYCLE_OF_P}",
        "cycle .*: its time, counts or links",
    ),
    "the time of a commitment": (
        "UPDATE merkle_commitments SET committed_at = committed_at - interval '1 s'"
        f" WHERE id = (SELECT commitment_id FROM predictions WHERE id = '{P}')",
        "commitment .*: its time",
    ),
    "a commitment removed": (
        f"DELETE FROM merkle_commitments WHERE id = (SELECT commitment_id FROM predictions WHERE id = '{P}')",
        "prediction p-1-m[123] of model m[123]: it is not in the commitment",
    ),
    "a link of the commitments removed": (
        "DELETE FROM merkle_commitments WHERE position = 2",
        "prediction p-1-m[123] .* not in the commitment|commitment .* does not follow",
    ),
    "one reward": (
        "UPDATE checkpoints SET entries_jsonb = jsonb_set(jsonb_set(entries_jsonb, '{0,cruncher_rewards,0,reward_pct}',"
        " '500000001'), '{0,cruncher_rewards,1,reward_pct}', '249999999')",
        "the emission pays 500000001 to m. .rank 1.|the emission pays .* the tiers give",
    ),
    "two rewards swapped": (
        "UPDATE checkpoints SET entries_jsonb = jsonb_set(jsonb_set(entries_jsonb,"
        " '{0,cruncher_rewards,0,cruncher_index}', '1'), '{0,cruncher_rewards,1,cruncher_index}', '0')",
        "the emission pays .* the tiers give",
    ),
    "two models swapped in the ranking": (
        f"UPDATE checkpoints SET meta_jsonb = {swapped_in('ranking', 'meta_jsonb')}",
        "rank 1 is m.: by score_recent it must be m.",
    ),
    "what ties are broken by": (
        "UPDATE checkpoints SET meta_jsonb = jsonb_set(meta_jsonb, '{ties,m1}', 'null')",
        "checkpoint .*: its period, times, emission, ranking or rules",
    ),
    "the time of a checkpoint": (
        "UPDATE checkpoints SET created_at = created_at + interval '1 s'",
        "checkpoint .*: its period, times",
    ),
    "the root": ("UPDATE checkpoints SET merkle_root = repeat('0', 64)", "checkpoint .*: its period, times"),
}


@pytest.fixture(scope="module")
def competition(databases: Any) -> Iterator[Competition]:
    with databases.fresh("migrated_template") as database_url:
        engine = make_engine(database_url, "tests")
        made = Competition(engine)
        made.run()
        yield made
        engine.dispose()


@pytest.fixture(scope="module")
def url(competition: Competition) -> Iterator[str]:
    with running(report_app(competition.engine)) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def client(competition: Competition) -> Iterator[Client]:
    made = Client(report_app(competition.engine))
    yield made
    made.close()


@contextmanager
def changed(engine: Engine, statement: str) -> Iterator[None]:
    """The database with a change that its keys would not allow, taken back at the end."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in TABLES:
            connection.execute(text(f"CREATE TABLE kept_{table} AS TABLE {table}"))
        assert connection.execute(text(statement.replace(":", r"\:"))).rowcount > 0
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            for table in TABLES:
                connection.execute(text(f"DELETE FROM {table}"))
                connection.execute(text(f"INSERT INTO {table} SELECT * FROM kept_{table}"))
                connection.execute(text(f"DROP TABLE kept_{table}"))


def checkpoints(engine: Engine) -> list[str]:
    return [row["id"] for row in rows(engine, "SELECT id FROM checkpoints ORDER BY period_end")]


def test_what_was_made_verifies(competition: Competition, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for checkpoint_id in checkpoints(competition.engine):
        assert verify.main(["--url", url, "--checkpoint", checkpoint_id]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "3 scored predictions that were not committed" in said
    assert "not recomputed: each score from its ground truth" in said
    late = rows(competition.engine, "SELECT id FROM predictions WHERE failed_reason = 'committed late' ORDER BY id")
    assert [row["id"] for row in late] == ["p-10-m1", "p-10-m2", "p-10-m3"]


@pytest.mark.parametrize("what", LIES)
def test_a_lie_is_named(what: str, competition: Competition, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    statement, named = LIES[what]
    checkpoint_id = checkpoints(competition.engine)[-1 if "last" in what else 0]
    with changed(competition.engine, statement):
        assert verify.main(["--url", url, "--checkpoint", checkpoint_id]) == 1
    said = capsys.readouterr().err
    assert said.startswith("LIE: ")
    assert re.search(named, said), said


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("merkle_root = repeat('0', 64)", "has another root than it names"),
        ("period_end = period_end - interval '1 s'", "not where its period begins"),
        (
            "meta_jsonb = jsonb_set(meta_jsonb, '{ties,m1}', '\"2020-01-01T00:00:00.000000Z\"')",
            "model m1 was first scored at another time",
        ),
    ],
)
def test_a_lie_in_the_checkpoint_before_is_named(
    statement: str, named: str, competition: Competition, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = checkpoints(competition.engine)
    with changed(competition.engine, f"UPDATE checkpoints SET {statement} WHERE id = '{first}'"):
        assert verify.main(["--url", url, "--checkpoint", second]) == 1
    assert named in capsys.readouterr().err


def test_the_command_is_the_script(competition: Competition, url: str) -> None:
    folder = Path(coordinator_node.__file__).parent.parent
    command = [sys.executable, "-c", "from coordinator_node.cli.main import run; run()", "verify", "--url", url]
    by_command = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    by_script = subprocess.run(
        [sys.executable, "-I", str(VERIFY), "--url", url], capture_output=True, text=True, check=False
    )
    assert by_script.returncode == 0, by_script.stderr
    assert (by_command.returncode, by_command.stdout) == (0, by_script.stdout)
    with changed(competition.engine, "UPDATE checkpoints SET merkle_root = repeat('0', 64)"):
        lied = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (lied.returncode, lied.stdout) == (1, "")
    assert lied.stderr.startswith("LIE: checkpoint")


def test_what_cannot_be_asked_is_no_lie(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["--url", "http://127.0.0.1:1"]) == 2
    assert verify.main(["--url", url, "--checkpoint", "unknown"]) == 2
    assert "404" in capsys.readouterr().err


def test_small_pages_make_the_same_evidence(
    competition: Competition, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verify.main(["--url", url])
    whole = capsys.readouterr().out
    for size in (1, 2, 5):
        monkeypatch.setattr(evidence, "ITEMS", size)
        assert verify.main(["--url", url]) == 0
        assert capsys.readouterr().out == whole


def steps(path: list[dict[str, str]]) -> list[ProofStep]:
    return [ProofStep(**step) for step in path]


def test_proofs_lead_from_every_snapshot_and_prediction_to_the_checkpoint(
    competition: Competition, client: Client
) -> None:
    roots = {row["id"]: row["merkle_root"] for row in rows(competition.engine, "SELECT * FROM checkpoints")}
    assert [client.rows(f"/reports/checkpoints/{key}/payload")["meta"]["merkle"]["root"] for key in roots] == list(
        roots.values()
    )
    for snapshot in rows(competition.engine, "SELECT id, content_hash FROM snapshots"):
        proof = client.rows("/reports/merkle/proof", snapshot_id=snapshot["id"])
        assert proof["snapshot_content_hash"] == snapshot["content_hash"]
        # The last cycle is of a period that has not ended.
        assert proof["merkle_root"] == (roots[proof["checkpoint_id"]] if proof["checkpoint_id"] else None)
        start = leaf_hash(bytes.fromhex(proof["snapshot_content_hash"]))
        root = proof["merkle_root"] or proof["cycle_root"]
        assert verify_proof(start, steps(proof["path"]), root)
        assert not verify_proof(leaf_hash(b"other"), steps(proof["path"]), root)
        assert client.rows(f"/reports/merkle/cycles/{proof['cycle_id']}")["chained_root"] == proof["cycle_root"]
    for row in rows(competition.engine, "SELECT * FROM predictions"):
        proof = client.rows("/reports/merkle/proof", prediction_id=row["id"])
        document = {
            "version": 1,
            **{
                name: row[name] for name in ("id", "input_id", "model_id", "scope_key", "performed_at", "resolvable_at")
            },
            "scope": row["scope_jsonb"],
            "output": row["inference_output_jsonb"],
        }
        start = leaf_hash(canonical_bytes(document))
        assert start == proof["prediction_hash"]
        assert verify_proof(start, steps(proof["path"]), proof["merkle_root"] or proof["cycle_root"])
        assert (proof["commitment"] is None) == (row["id"].startswith("p-2-"))
        if proof["commitment"]:
            assert verify_proof(start, steps(proof["commitment"]["path"]), proof["commitment"]["root"])


def test_what_is_not_in_the_log_is_not_found(client: Client) -> None:
    assert client.get("/reports/merkle/cycles/unknown").status_code == 404
    for asked, named in ((("snapshot_id", "un"), "snapshot un"), (("prediction_id", "un"), "counted prediction un")):
        answer = client.get("/reports/merkle/proof", **dict([asked]))
        assert (answer.status_code, answer.json()) == (404, {"detail": f"there is no {named} in the log"})
    assert client.get("/reports/merkle/proof", snapshot_id="").json() == {"detail": "there is no snapshot  in the log"}
    assert client.get("/reports/merkle/proof").status_code == 422
    assert client.get("/reports/evidence/unknown").status_code == 404
    assert client.get("/reports/evidence/latest", cursor="1").status_code == 422


@pytest.mark.parametrize(
    "odd", ["1.999999999", "1.9999999999", "999.1", "1", "x.1", "1.1.1", "+1.0", "\u0663.0", "-1.0"]
)
def test_a_cursor_that_no_page_named_is_refused(client: Client, odd: str) -> None:
    answer = client.get("/reports/evidence/latest", cursor=odd)
    assert answer.status_code == 422, "one far into a cycle would read every cycle behind it"
    assert "cursor" in answer.json()["detail"]


def test_a_root_of_another_kind_is_no_evidence(competition: Competition, client: Client) -> None:
    sealed = client.get("/reports/evidence/latest").json()["checkpoint"]["id"]
    columns = "id, period_start, period_end, status, entries_jsonb, meta_jsonb, merkle_root, created_at"
    values = "'old', now(), now(), 'PENDING', '[]', '{}', 'ab', now()"
    with competition.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO checkpoints ({columns}) VALUES ({values})"))
    assert client.get("/reports/evidence/old").status_code == 404
    assert client.get("/reports/evidence/latest").json()["checkpoint"]["id"] == sealed


def test_cycles_and_commitments_are_listed(competition: Competition, client: Client) -> None:
    cycles = client.rows("/reports/merkle/cycles")
    assert [row["position"] for row in cycles] == list(range(len(cycles), 0, -1))
    first = client.rows("/reports/merkle/commitments", limit=4)
    rest = client.rows("/reports/merkle/commitments", after=first[-1]["position"])
    assert [row["position"] for row in first + rest] == list(range(1, 11))
    assert rest[0]["previous_root"] == first[-1]["chained_root"]
    assert rest[-1]["chained_root"] == cycles[0]["commitments_root"]


def test_evidence_is_public_where_reading_needs_a_key(competition: Competition) -> None:
    made = Client(report_app(competition.engine, API_KEY="k", API_READ_AUTH="true"))
    assert made.get("/reports/evidence/latest").status_code == 200
    assert made.get("/reports/merkle/commitments").status_code == 200
    assert made.get("/reports/predictions").status_code == 401
    made.close()


def test_the_script_writes_numbers_and_texts_as_the_engine_does() -> None:
    for value in (
        0,
        -0.0,
        1e22,
        1e21,
        1e20,
        1e16,
        1e-6,
        1e-7,
        5e-324,
        0.1,
        -1.5,
        2**60,
        True,
        None,
        "é\u2028\x7f\x00\n",
    ):
        document = {"b": value, "a": [value], "\U0001f600": 1, "\uffff": {}}
        assert verify.canonical(document).encode() == canonical_bytes(document)
        assert verify.canonical(json.loads(canonical_bytes(document))).encode() == canonical_bytes(document)


def test_a_checkpoint_without_cycles_has_a_root(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    competition = Competition(engine)
    competition.slot(0)
    competition.count(70)
    assert competition.check_point(500) == 4
    assert one(engine, "SELECT count(*) FROM checkpoints WHERE merkle_root IS NULL") == 0
    with running(report_app(engine)) as server:
        assert verify.main(["--url", f"http://127.0.0.1:{server.port}"]) == 0
    assert "0 ranked models" in capsys.readouterr().out


def highest(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {"value": max(result["value"] for result in results)}


def all_to_the_first(ranked_entries: list[Any], crunch_pubkey: str, *providers: str | None) -> Any:
    return emission_of([FRAC_64_MULTIPLIER, *[0] * (len(ranked_entries) - 1)], crunch_pubkey)


def test_what_custom_code_made_is_said_not_to_be_recomputed(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    competition = Competition(engine, aggregate_snapshot=highest, build_emission=all_to_the_first, metrics=["ic"])
    competition.run()
    with running(report_app(engine)) as server:
        assert verify.main(["--url", f"http://127.0.0.1:{server.port}"]) == 0
        said = capsys.readouterr().out
        changed_twice = (
            "UPDATE checkpoints SET entries_jsonb = jsonb_set(jsonb_set(entries_jsonb,"
            " '{0,cruncher_rewards,0,reward_pct}', '999999999'), '{0,cruncher_rewards,1,reward_pct}', '1')"
        )
        with changed(engine, changed_twice):
            assert verify.main(["--url", f"http://127.0.0.1:{server.port}"]) == 1
    for made in ("the emission, which .*:all_to_the_first made", "sums, which .*:highest makes", "the metrics ic"):
        assert re.search(f"not recomputed: .*{made}", said), said
    assert "its period, times, emission" in capsys.readouterr().err
