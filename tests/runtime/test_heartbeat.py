"""What a worker's row says of its passes, by which clock."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine, text

from coordinator_node.config.settings import load_settings
from coordinator_node.runtime.loop import PassResult
from coordinator_node.runtime.worker import Worker

HOUR = timedelta(hours=1)


def test_its_times_are_the_databases_on_a_machine_whose_clock_is_wrong(engine: Engine) -> None:
    worker = Worker("score", load_settings(), engine)
    machine_time = worker.clock()
    worker.clock.compare(machine_time, machine_time + HOUR)  # as if the database's were the one that is right
    worker.heartbeat.report(PassResult())
    worker.heartbeat.report(ValueError("a bad row"))
    worker.heartbeat.beat()
    with engine.connect() as connection:
        row = connection.execute(text("SELECT last_pass_at, last_error_at FROM worker_heartbeats")).one()
    assert machine_time + HOUR <= row.last_pass_at <= row.last_error_at < machine_time + 2 * HOUR
