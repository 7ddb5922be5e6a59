"""Tournament rounds: a slot may belong to a round, one for each of its feature rows, instead of to a schedule."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CALLED_WITHOUT_ROUNDS = "status = 'CALLED' AND input_id IS NOT NULL AND deadline_at IS NOT NULL"
CALLED = "status = 'CALLED' AND input_id IS NOT NULL AND (deadline_at IS NOT NULL OR round_id IS NOT NULL)"


def upgrade() -> None:
    op.alter_column("prediction_slots", "prediction_config_id", nullable=True)
    op.add_column("prediction_slots", sa.Column("round_id", sa.String()))
    op.add_column("prediction_slots", sa.Column("feature_index", sa.Integer()))
    op.create_unique_constraint("uq_prediction_slots_round", "prediction_slots", ["round_id", "feature_index"])
    op.create_check_constraint(
        "ck_prediction_slots_owner",
        "prediction_slots",
        "num_nonnulls(prediction_config_id, round_id) = 1 AND num_nonnulls(round_id, feature_index) <> 1",
    )
    say_what_is_complete(CALLED)


def downgrade() -> None:
    # Predictions of rounds stay: their scope says which round and row they belong to.
    op.execute(
        "UPDATE predictions SET slot_id = NULL FROM prediction_slots AS slot"
        " WHERE slot.id = predictions.slot_id AND slot.round_id IS NOT NULL"
    )
    op.execute(
        "DELETE FROM slot_calls USING prediction_slots AS slot WHERE slot.id = slot_id AND slot.round_id IS NOT NULL"
    )
    op.execute("DELETE FROM prediction_slots WHERE round_id IS NOT NULL")
    say_what_is_complete(CALLED_WITHOUT_ROUNDS)
    op.drop_constraint("ck_prediction_slots_owner", "prediction_slots", type_="check")
    op.drop_column("prediction_slots", "feature_index")
    op.drop_column("prediction_slots", "round_id")
    op.alter_column("prediction_slots", "prediction_config_id", nullable=False)


def say_what_is_complete(called: str) -> None:
    op.drop_constraint("ck_prediction_slots_complete", "prediction_slots", type_="check")
    op.create_check_constraint(
        "ck_prediction_slots_complete",
        "prediction_slots",
        f"(status = 'MISSED' AND reason IS NOT NULL) OR ({called})",
    )
