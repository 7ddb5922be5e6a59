"""What `coordinator-node backup` and `restore` do: a whole database to a file and back, by pg_dump and pg_restore."""

from coordinator_node.cli.backup.dump import run_backup
from coordinator_node.cli.backup.restore import run_restore

__all__ = ["run_backup", "run_restore"]
