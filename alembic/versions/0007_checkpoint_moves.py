"""Every move of a checkpoint leaves a row that nobody can change: who, when, from where, to where, by which request.

A trigger writes it, so that moves by hand and by operators' own code leave one too.
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The report API says who and by which request with set_config; of others only the session is known.
RECORD_A_MOVE = """
CREATE OR REPLACE FUNCTION record_checkpoint_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO checkpoint_moves
        (checkpoint_id, moved_at, moved_by, from_status, to_status, tx_hash, request_id)
    VALUES (
        NEW.id,
        clock_timestamp(),
        COALESCE(
            NULLIF(current_setting('coordinator.moved_by', true), ''),
            concat_ws(', ', 'database user ' || session_user, NULLIF(current_setting('application_name'), ''))
        ),
        OLD.status,
        NEW.status,
        NEW.tx_hash,
        NULLIF(current_setting('coordinator.request_id', true), '')
    );
    RETURN NULL;
END $$
"""
REFUSE_A_CHANGE = """
CREATE OR REPLACE FUNCTION refuse_change_of_checkpoint_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'checkpoint_moves is only ever added to: % is refused', TG_OP
        USING HINT = 'a move that was wrong is put right by another move, which leaves a row of its own';
END $$
"""


def upgrade() -> None:
    op.create_table(
        "checkpoint_moves",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("checkpoint_id", sa.String(), sa.ForeignKey("checkpoints.id"), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("moved_by", sa.String(), nullable=False),
        sa.Column("from_status", sa.String(), nullable=False),
        sa.Column("to_status", sa.String(), nullable=False),
        sa.Column("tx_hash", sa.String()),
        sa.Column("request_id", sa.String()),
    )
    op.create_index("ix_checkpoint_moves_checkpoint_id", "checkpoint_moves", ["checkpoint_id"])
    op.execute(RECORD_A_MOVE)
    op.execute(REFUSE_A_CHANGE)
    op.execute(
        "CREATE TRIGGER record_move AFTER UPDATE OF status ON checkpoints FOR EACH ROW"
        " WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION record_checkpoint_move()"
    )
    op.execute(
        "CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoint_moves FOR EACH STATEMENT"
        " EXECUTE FUNCTION refuse_change_of_checkpoint_moves()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER record_move ON checkpoints")
    op.drop_table("checkpoint_moves")
    op.execute("DROP FUNCTION record_checkpoint_move()")
    op.execute("DROP FUNCTION refuse_change_of_checkpoint_moves()")
