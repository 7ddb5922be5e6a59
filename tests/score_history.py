"""Fills a database at once: models, a history that is scored and counted, and predictions that are due to be scored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

MODELS = 50
SLOT_SECONDS = 30
HORIZON_SECONDS = 60
SLOTS_A_CYCLE = 2
START = datetime(2026, 3, 1, tzinfo=UTC)

_MODELS = text(
    """
    INSERT INTO models (id, name, deployment_identifier, player_id, player_name, scores_by_scope_jsonb, meta_jsonb,
                        created_at, updated_at, presence, presence_since)
    SELECT 'model-' || lpad(n::text, 3, '0'), 'model ' || n, 'deployment ' || n, 'player ' || n, 'player ' || n,
           '[]', '{}', :start, :start, 'PRESENT', :start
    FROM generate_series(1, :models) AS n
    """
)
_SCHEDULE = text(
    """
    INSERT INTO scheduled_prediction_configs (id, scope_key, scope_template_jsonb, schedule_jsonb, active, "order",
                                              meta_jsonb)
    VALUES ('BTC-60', 'BTC-60', '{"subject": "BTC"}',
            '{"prediction_interval_seconds": 30, "resolve_horizon_seconds": 60}', true, 0, '{}')
    """
)
_ANCHOR = text(
    """
    INSERT INTO engine_state (key, value_jsonb, updated_at)
    VALUES ('checkpoint_anchor', CAST(:value AS jsonb), :start)
    """
)
_INPUTS = text(
    """
    INSERT INTO inputs (id, raw_data_jsonb, received_at, status, actuals_jsonb, scope_jsonb)
    SELECT 'input-' || lpad(slot::text, 9, '0'), '{"symbol": "BTC"}',
           :start + slot * make_interval(secs => :spacing),
           CASE WHEN :scored THEN 'RESOLVED' ELSE 'RECEIVED' END,
           CASE WHEN :scored THEN jsonb_build_object('entry_price', 100.0, 'resolved_price', 101.0,
                                                    'profit', sin(slot) / 100, 'direction_up', sin(slot) > 0) END,
           '{"subject": "BTC"}'
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS slot
    """
)
_SLOTS = text(
    """
    INSERT INTO prediction_slots (id, prediction_config_id, slot_at, status, input_id, deadline_at, created_at)
    SELECT 'slot-' || lpad(slot::text, 9, '0'), 'BTC-60', :start + slot * make_interval(secs => :spacing), 'CALLED',
           'input-' || lpad(slot::text, 9, '0'), :start + slot * make_interval(secs => :spacing),
           :start + slot * make_interval(secs => :spacing)
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS slot
    """
)
_PREDICTIONS = text(
    """
    INSERT INTO predictions (id, input_id, model_id, prediction_config_id, scope_key, scope_jsonb, status, exec_time_ms,
                             inference_output_jsonb, meta_jsonb, performed_at, resolvable_at, slot_id, answered_at)
    SELECT 'prediction-' || lpad(slot::text, 9, '0') || '-' || lpad(n::text, 3, '0'),
           'input-' || lpad(slot::text, 9, '0'), 'model-' || lpad(n::text, 3, '0'), 'BTC-60', 'BTC-60',
           '{"subject": "BTC"}', CASE WHEN :scored THEN 'SCORED' ELSE 'PENDING' END, 1.5,
           jsonb_build_object('value', sin(slot * n) / 100), '{}', performed_at,
           performed_at + make_interval(secs => :horizon), 'slot-' || lpad(slot::text, 9, '0'), performed_at
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS slot
    CROSS JOIN LATERAL (SELECT :start + slot * make_interval(secs => :spacing) AS performed_at) AS times
    CROSS JOIN generate_series(1, :models) AS n
    """
)
_SNAPSHOTS = text(
    """
    INSERT INTO snapshots (id, model_id, period_start, period_end, prediction_count, result_summary_jsonb, meta_jsonb,
                           created_at, cycle_id)
    SELECT 'snapshot-' || lpad(cycle::text, 9, '0') || '-' || lpad(n::text, 3, '0'), 'model-' || lpad(n::text, 3, '0'),
           begun, ended, :in_cycle,
           jsonb_build_object('value', sin(cycle * n) / 100, 'ic', 0.01, 'ic_sharpe', 0.1, 'hit_rate', 0.5,
                              'max_drawdown', -0.1, 'model_correlation', 0.0),
           jsonb_build_object('failed_count', 0, 'scopes', jsonb_build_object('BTC-60', jsonb_build_object(
               'prediction_count', :in_cycle, 'value', sin(cycle * n) / 100))),
           ended, 'cycle-' || lpad(cycle::text, 9, '0')
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS cycle
    CROSS JOIN LATERAL (
        SELECT :start + cycle * :in_cycle * make_interval(secs => :spacing) AS begun,
               :start + (cycle * :in_cycle + :in_cycle - 1) * make_interval(secs => :spacing)
               + make_interval(secs => :horizon) AS ended
    ) AS times
    CROSS JOIN generate_series(1, :models) AS n
    """
)
_SCORES = text(
    """
    INSERT INTO scores (id, prediction_id, result_jsonb, success, scored_at, generation, snapshot_state, snapshot_id)
    SELECT 'score-' || lpad(slot::text, 9, '0') || '-' || lpad(n::text, 3, '0'),
           'prediction-' || lpad(slot::text, 9, '0') || '-' || lpad(n::text, 3, '0'),
           jsonb_build_object('value', sin(slot * n) / 100, 'success', true, 'failed_reason', null), true,
           :start + slot * make_interval(secs => :spacing) + make_interval(secs => :horizon), 1, 'COUNTED',
           'snapshot-' || lpad((slot / :in_cycle)::text, 9, '0') || '-' || lpad(n::text, 3, '0')
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS slot
    CROSS JOIN generate_series(1, :models) AS n
    """
)
_TICKS = text(
    """
    INSERT INTO feed_records (id, source, subject, kind, granularity, ts_event, ts_ingested, values_jsonb, meta_jsonb)
    SELECT 'record-' || extract(epoch FROM moment)::bigint, 'simulated', 'BTC', 'tick', '1s', moment, moment,
           jsonb_build_object('price', 100 + sin(extract(epoch FROM moment)::float8)), '{}'
    FROM generate_series(CAST(:begin AS timestamptz), CAST(:end AS timestamptz), interval '1 second') AS moment
    ON CONFLICT DO NOTHING
    """
)
_WATERMARK = text(
    """
    INSERT INTO feed_ingestion_state (id, source, subject, kind, granularity, last_event_ts, updated_at)
    VALUES ('watermark', 'simulated', 'BTC', 'tick', '1s', :end, :end)
    ON CONFLICT (source, subject, kind, granularity) DO UPDATE SET last_event_ts = excluded.last_event_ts
    """
)
_FIRST_SCORED = text("UPDATE models SET first_scored_at = :start")
_INDEXES = text(
    """
    SELECT indexname, indexdef FROM pg_indexes
    WHERE tablename IN ('predictions', 'scores', 'snapshots')
      AND indexname NOT IN (SELECT conname FROM pg_constraint)
    """
)


@dataclass(frozen=True)
class ScoreHistory:
    """Rows of MODELS models that all answered in every slot, one each `slot_seconds` from `start` on."""

    engine: Engine
    start: datetime = START
    slot_seconds: int = SLOT_SECONDS
    slots_a_cycle: int = SLOTS_A_CYCLE

    def slot_at(self, slot: int) -> datetime:
        """When a slot is called."""
        return self.start + timedelta(seconds=slot * self.slot_seconds)

    def resolved_at(self, slot: int) -> datetime:
        """When the outcome of a slot's predictions is known."""
        return self.slot_at(slot) + timedelta(seconds=HORIZON_SECONDS)

    def add_models(self) -> None:
        """The models, the schedule that their predictions belong to, and where the checkpoint periods begin."""
        anchor = f'{{"start": "{self.start.isoformat()}", "follows": false}}'
        with self.engine.begin() as connection:
            connection.execute(_MODELS, {"models": MODELS, "start": self.start})
            connection.execute(_SCHEDULE)
            connection.execute(_ANCHOR, {"start": self.start, "value": anchor})

    def add_scored(self, slots: int) -> None:
        """The first slots: scored and counted, with a snapshot a model each `slots_a_cycle` slots."""
        if slots == 0:
            return
        values = self._values(0, slots, scored=True)
        with self.engine.begin() as connection:
            # Whether rows refer to one another rightly is not checked: that would take five times as long.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            indexes = connection.execute(_INDEXES).all()
            for index in indexes:  # made anew at the end, they take a third of the time
                connection.execute(text(f"DROP INDEX {index.indexname}"))
            for statement in (_INPUTS, _SLOTS, _PREDICTIONS):
                connection.execute(statement, values)
            connection.execute(_SNAPSHOTS, values | {"last": slots // self.slots_a_cycle})
            connection.execute(_SCORES, values)
            connection.execute(_FIRST_SCORED, values)
            for index in indexes:
                connection.execute(text(index.indexdef))

    def add_due(self, first: int, slots: int) -> None:
        """So many slots from `first` on that nobody scored yet, and the feed to score them by."""
        values = self._values(first, slots, scored=False)
        with self.engine.begin() as connection:
            for statement in (_INPUTS, _SLOTS, _PREDICTIONS):
                connection.execute(statement, values)
            span = {"begin": self.slot_at(first), "end": self.resolved_at(first + slots)}
            connection.execute(_TICKS, span)
            connection.execute(_WATERMARK, span)

    def settle(self) -> None:
        """Let nothing that was added be paid for by what is measured next."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
            connection.execute(text("CHECKPOINT"))

    def _values(self, first: int, slots: int, *, scored: bool) -> dict[str, object]:
        return {
            "start": self.start,
            "spacing": self.slot_seconds,
            "horizon": HORIZON_SECONDS,
            "models": MODELS,
            "in_cycle": self.slots_a_cycle,
            "first": first,
            "last": first + slots - 1,
            "scored": scored,
        }
