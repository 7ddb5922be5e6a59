"""Recognises a database that version 0.1.84 made, and brings its rows to what the first migration states.

Its own migrations never ran, so it has no revision to go by: it is known by its tables. Their times are `timestamp`
or `timestamptz`, and mean UTC in both; `exec_time_ms` holds microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Dialect, Inspector, MetaData, Table, inspect, text
from sqlalchemy.schema import AddConstraint
from sqlalchemy.types import DateTime, TypeEngine

from coordinator_node.entities.errors import ConfigurationError

SHOWN_FAULTS = 5

# For each type of 0.1.84, what a column of it may be in a database and still hold every value that the engine writes.
COMPATIBLE_TYPES = {
    "VARCHAR": {"VARCHAR", "TEXT"},
    "TIMESTAMP WITH TIME ZONE": {"TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITHOUT TIME ZONE"},
    "INTEGER": {"INTEGER", "BIGINT"},
    "FLOAT": {"DOUBLE PRECISION"},
    "BOOLEAN": {"BOOLEAN"},
    "JSONB": {"JSONB"},
}


def is_predecessor(connection: Connection, predecessor: MetaData, ours: MetaData) -> bool:
    """Whether the database, which names no revision, is one of 0.1.84; False where it holds no table of our names.

    Args:
        connection: the database.
        predecessor: the tables of 0.1.84.
        ours: the tables of this version, whose new names must be free.

    Raises:
        ConfigurationError: it holds some of our names and is not one of 0.1.84; the message names what differs.
    """
    relations = _relations(connection)
    faults = list(_taken_names(relations, predecessor, ours))
    present = [name for name in predecessor.tables if name in relations]
    if not present and not faults:
        return False
    missing = [name for name in sorted(predecessor.tables) if name not in relations]
    faults += [f"the table {name} is missing" for name in missing]
    inspector = inspect(connection)
    for name in present:
        faults += _table_faults(inspector, predecessor.tables[name], ours.tables.get(name))
    if faults:
        raise ConfigurationError(_refusal(faults))
    return True


def convert(connection: Connection, predecessor: MetaData) -> None:
    """Bring a recognised database to the first migration's schema: keys, times and durations.

    Tables, columns, indexes and constraints that 0.1.84 does not have are left alone.
    """
    quote = connection.dialect.identifier_preparer.quote
    listed = ", ".join(quote(name) for name in sorted(predecessor.tables))
    # All at once and first, so that a worker still running cannot write between the steps or deadlock with them.
    connection.execute(text(f"LOCK TABLE {listed} IN ACCESS EXCLUSIVE MODE"))
    inspector = inspect(connection)
    for table in predecessor.sorted_tables:
        _convert_times(connection, inspector, table)
    connection.execute(text("UPDATE predictions SET exec_time_ms = exec_time_ms / 1000 WHERE exec_time_ms <> 0"))
    for table in predecessor.sorted_tables:
        _complete(connection, inspector, table)
    # Some databases still have the foreign key that 0.1.84 dropped in others; the second migration makes it.
    connection.execute(text("ALTER TABLE predictions DROP CONSTRAINT IF EXISTS predictions_prediction_config_id_fkey"))


def _relations(connection: Connection) -> set[str]:
    """Names of all tables, views and indexes in the schema that the engine would use."""
    query = text("SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace")
    return set(connection.execute(query).scalars())


def _taken_names(relations: set[str], predecessor: MetaData, ours: MetaData) -> Iterator[str]:
    """Names that a migration will make and that something of another's has already."""
    for name in sorted(set(ours.tables) - set(predecessor.tables)):
        if name in relations:
            yield f"the name {name} is taken by something that is not this engine's"
    for index in sorted(_index_names(ours) - _index_names(predecessor)):
        if index in relations:
            yield f"the name {index} is taken by an index that is not this engine's"


def _index_names(metadata: MetaData) -> set[str]:
    return {str(index.name) for table in metadata.tables.values() for index in table.indexes}


def _table_faults(inspector: Inspector, expected: Table, ours: Table | None) -> Iterator[str]:
    found = {column["name"]: column for column in inspector.get_columns(expected.name)}
    for column in expected.columns:
        if column.name not in found:
            yield f"the table {expected.name} lacks the column {column.name}"
            continue
        kind = found[column.name]["type"]
        if not _is_compatible(inspector.dialect, kind, column.type):
            yield f"the column {expected.name}.{column.name} is {kind}, and not {column.type}"
        if found[column.name]["nullable"] and not column.nullable:
            yield f"the column {expected.name}.{column.name} is not NOT NULL"
    if inspector.get_pk_constraint(expected.name)["constrained_columns"] != ["id"]:
        yield f"the primary key of {expected.name} is not its id"
    added = set(ours.columns.keys()) - set(expected.columns.keys()) if ours is not None else set()
    for name in sorted(added & set(found)):
        yield f"the table {expected.name} has a column {name} that is not this engine's"


def _is_compatible(dialect: Dialect, found: TypeEngine[Any], expected: TypeEngine[Any]) -> bool:
    return found.compile(dialect=dialect) in COMPATIBLE_TYPES[expected.compile(dialect=dialect)]


def _convert_times(connection: Connection, inspector: Inspector, table: Table) -> None:
    """One rewrite of the table for all of its naive times."""
    quote = connection.dialect.identifier_preparer.quote
    naive = [
        quote(column["name"])
        for column in inspector.get_columns(table.name)
        if column["name"] in table.columns and isinstance(column["type"], DateTime) and not column["type"].timezone
    ]
    if naive:
        changes = ", ".join(f"ALTER COLUMN {name} TYPE timestamptz USING {name} AT TIME ZONE 'UTC'" for name in naive)
        connection.execute(text(f"ALTER TABLE {quote(table.name)} {changes}"))


def _complete(connection: Connection, inspector: Inspector, table: Table) -> None:
    """Make the indexes and foreign keys of 0.1.84 that someone removed."""
    for index in table.indexes:
        index.create(connection, checkfirst=True)
    present = {tuple(key["constrained_columns"]) for key in inspector.get_foreign_keys(table.name)}
    for key in table.foreign_key_constraints:
        if tuple(key.column_keys) not in present:
            connection.execute(AddConstraint(key))


def _refusal(faults: list[str]) -> str:
    more = f", and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
    return (
        f"the database is neither empty nor one of version 0.1.84: {'; '.join(faults[:SHOWN_FAULTS])}{more}."
        " Nothing was changed. Restore or rename what is named, or choose an empty database."
    )
