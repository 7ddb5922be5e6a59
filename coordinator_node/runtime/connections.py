"""What every connection to the database is opened with, whoever opens it."""

from __future__ import annotations

CLIENT_OPTIONS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""libpq's parameters. A connection that is cut without a word is noticed within about 15 s instead of the system's
hours: by its keepalives while it waits, by the timeout (in milliseconds) once it has sent what nobody acknowledges."""
