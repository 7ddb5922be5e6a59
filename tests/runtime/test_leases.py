"""Leases: one holder at a time, and nothing written by one that has lost it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from coordinator_node.db.engine import transaction
from coordinator_node.runtime.leases import Lease, LeaseGroup, LeaseLostError


def expire(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'"))


def write(engine: Engine, lease: Lease) -> None:
    with transaction(engine, lease.fence()) as session:
        session.connection().execute(text("INSERT INTO engine_state VALUES ('k', '{}', now())"))


def written(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM engine_state")).scalar_one())


def test_only_one_of_two_holds_it_and_the_epoch_grows(engine: Engine) -> None:
    one, two = Lease(engine, "x", "one"), Lease(engine, "x", "two")
    assert one.keep()
    assert not two.keep()
    first = one.epoch
    assert (one.held, two.held) == (True, False)
    assert first is not None
    assert one.keep()
    assert one.epoch == first
    one.release()
    assert not one.held
    assert two.keep()
    assert two.epoch == first + 1


def test_an_expired_lease_goes_to_who_asks_and_its_old_holder_writes_nothing(engine: Engine) -> None:
    one, two = Lease(engine, "x", "one"), Lease(engine, "x", "two")
    one.keep()
    fence = one.fence()
    expire(engine)
    assert two.keep()
    with pytest.raises(LeaseLostError, match=r"epoch \d+ has passed"), transaction(engine, fence) as session:
        session.connection().execute(text("INSERT INTO engine_state VALUES ('k', '{}', now())"))
    assert written(engine) == 0
    write(engine, two)
    assert written(engine) == 1
    assert not one.keep()


def test_a_holder_that_was_late_keeps_it_while_nobody_took_it(engine: Engine) -> None:
    one = Lease(engine, "x", "one")
    one.keep()
    first = one.epoch
    expire(engine)
    assert one.keep()
    assert one.epoch == first


def test_a_pass_that_began_under_an_earlier_epoch_of_the_same_holder_is_refused(engine: Engine) -> None:
    one, two = Lease(engine, "x", "one"), Lease(engine, "x", "two")
    one.keep()
    old = one.fence()
    expire(engine)
    two.keep()
    expire(engine)
    assert one.keep()
    assert one.epoch == old.epoch + 2
    with pytest.raises(LeaseLostError), transaction(engine, old):
        pass


def test_without_renewal_the_holder_itself_stops_before_anyone_may_take_it(engine: Engine) -> None:
    one = Lease(engine, "x", "one", seconds=0.0)
    assert one.keep()
    assert not one.held
    with pytest.raises(LeaseLostError, match="not held by one"):
        one.fence()


def test_it_cannot_be_taken_between_the_check_and_the_commit(
    engine: Engine, database_url: str, connect: Callable[[str], Engine]
) -> None:
    one, two = Lease(engine, "x", "one"), Lease(connect(database_url), "x", "two")
    one.keep()
    taken = threading.Event()

    def take() -> None:
        two.keep()
        taken.set()

    taker = threading.Thread(target=take)
    with transaction(engine) as session:
        one.fence().check(session)
        with connect(database_url).begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                connection.execute(text("UPDATE leases SET expires_at = clock_timestamp() WHERE name = 'x'"))
        taker.start()
        assert not taken.wait(0.2)
    taker.join(5)
    assert not two.held


def test_many_at_once_give_one_holder(engine: Engine, database_url: str, connect: Callable[[str], Engine]) -> None:
    leases = [Lease(connect(database_url), "x", str(i)) for i in range(8)]
    barrier = threading.Barrier(len(leases))

    def take(lease: Lease) -> None:
        barrier.wait()
        lease.keep()

    threads = [threading.Thread(target=take, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease.held for lease in leases) == 1


def test_after_a_reset_of_the_database_the_old_holder_writes_nothing(engine: Engine) -> None:
    one = Lease(engine, "x", "one")
    one.keep()
    old = one.fence()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM leases"))
    assert Lease(engine, "x", "two").keep()
    with pytest.raises(LeaseLostError), transaction(engine, old):
        pass
    assert not one.keep()


@pytest.mark.parametrize("action", [LeaseGroup.renew, LeaseGroup.release])
def test_rows_are_locked_in_the_order_in_which_every_fence_locks_them(
    engine: Engine, action: Callable[[LeaseGroup], None]
) -> None:
    """Else the holder's own transactions and its renewals would wait for each other in a circle."""
    group = LeaseGroup(engine, ("a", "b"), "one")
    assert group.take("b")
    assert group.take("a")
    with engine.connect() as fence, engine.connect() as other:
        fence.execute(text("SELECT 1 FROM leases WHERE name = 'b' FOR SHARE"))
        acting = threading.Thread(target=action, args=(group,))
        acting.start()
        until_somebody_waits(other)
        with pytest.raises(OperationalError, match="could not obtain lock"):
            other.execute(text("SELECT 1 FROM leases WHERE name = 'a' FOR SHARE NOWAIT"))
        fence.rollback()
        acting.join()


def until_somebody_waits(connection: Connection) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    for _ in range(500):
        if connection.execute(waiting).scalar_one():
            return
        connection.rollback()  # within one transaction the view shows what it showed first
        time.sleep(0.01)
    raise AssertionError("nobody waits for a lock")
