"""What a database holds, in figures that a copy of it must have too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

_TABLES = text(
    """
    SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind = 'r' AND relpersistence <> 't' AND nspname <> 'information_schema' AND nspname !~ '^pg_'
      AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                      AND deptype = 'e')
    ORDER BY 1
    """
)
_SEQUENCES = text(
    """
    SELECT format('%I.%I', schemaname, sequencename) AS name, last_value FROM pg_sequences
    WHERE schemaname !~ '^pg_' ORDER BY 1
    """
)
_HAS_TABLE = text("SELECT to_regclass(:name) IS NOT NULL")
_REVISION = text("SELECT max(version_num) FROM alembic_version")
_HAS_POSITIONS = text(
    """
    SELECT count(*) FROM information_schema.columns
    WHERE table_schema = current_schema() AND table_name = :chain AND column_name = 'position'
    """
)
# The Merkle log's two chains; rows of 0.1.84 have no position and belong to none.
_CHAINS = {
    "merkle_commitments": "SELECT position, chained_root FROM merkle_commitments WHERE position IS NOT NULL",
    "merkle_cycles": "SELECT position, chained_root FROM merkle_cycles WHERE position IS NOT NULL",
}


@dataclass(frozen=True)
class Contents:
    """A database in figures.

    Attributes:
        revision: the schema's; None where it names none, as a database of 0.1.84 does.
        tables: rows by table, as `schema.table`; tables of extensions are left out.
        sequences: the last number that each sequence gave; None where it gave none yet.
        chain_heads: place and root of the last link of each chain of the Merkle log that has links.
    """

    revision: str | None
    tables: dict[str, int]
    sequences: dict[str, int | None]
    chain_heads: dict[str, tuple[int, str]]

    @property
    def rows(self) -> int:
        """The rows of all tables together."""
        return sum(self.tables.values())


def table_names(connection: Connection) -> list[str]:
    """Every table that somebody made in the database, as `schema.table`."""
    return list(connection.execute(_TABLES).scalars())


def has_table(connection: Connection, name: str) -> bool:
    """Whether there is a table of that name where the engine looks for its own."""
    return bool(connection.execute(_HAS_TABLE, {"name": name}).scalar_one())


def read_contents(connection: Connection) -> Contents:
    """The figures of a database. It reads every table in full: give it one snapshot, and time."""
    tables = table_names(connection)
    return Contents(
        revision=connection.execute(_REVISION).scalar() if has_table(connection, "alembic_version") else None,
        # The names come from the catalogue, quoted by Postgres itself.
        tables={name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in tables},  # noqa: S608 - see above
        sequences={row.name: row.last_value for row in connection.execute(_SEQUENCES)},
        chain_heads=dict(_chain_heads(connection)),
    )


def differences(expected: Contents, found: Contents) -> list[str]:
    """What a copy does not have as it should, one sentence each; empty where it is whole.

    A sequence may be further, because it takes no part in snapshots.
    """
    told = []
    if found.revision != expected.revision:
        told.append(f"the schema is at revision {found.revision} and not {expected.revision}")
    for name, rows in expected.tables.items():
        if name not in found.tables:
            told.append(f"the table {name} is missing")
        elif found.tables[name] != rows:
            told.append(f"the table {name} has {found.tables[name]:,} rows and not {rows:,}")
    for name, number in expected.sequences.items():
        if name not in found.sequences:
            told.append(f"the sequence {name} is missing")
        elif (found.sequences[name] or 0) < (number or 0):
            told.append(f"the sequence {name} is at {found.sequences[name]} and not at {number}")
    for chain, head in expected.chain_heads.items():
        if found.chain_heads.get(chain) != head:
            told.append(f"the chain {chain} ends with {found.chain_heads.get(chain)} and not {head}")
    return told


def _chain_heads(connection: Connection) -> Iterator[tuple[str, tuple[int, str]]]:
    for chain, links in _CHAINS.items():
        if connection.execute(_HAS_POSITIONS, {"chain": chain}).scalar_one():
            head = connection.execute(text(f"{links} ORDER BY position DESC LIMIT 1")).first()
            if head is not None:
                yield chain, (head.position, head.chained_root)
