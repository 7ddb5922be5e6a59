"""Score workers that start at once: run as a program, it imports them, then forks one for each line `start` it reads.

It answers with the worker's process id; to `wait <pid>` it answers with the exit code once that has ended, a negative
signal number for one that was killed. A worker is `python -m coordinator_node.workers.score_worker` but for the second
of imports, and for batches so small that a kill falls between two commits as often as into the middle of one.
"""

from __future__ import annotations

import os
import sys

from coordinator_node.services.score import service
from coordinator_node.workers import score_worker

service.BATCH = 100


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "wait":
            answer = os.waitstatus_to_exitcode(os.waitpid(int(arguments[0]), 0)[1])
        elif (answer := os.fork()) == 0:
            os._exit(score_worker.main())
        print(answer, flush=True)  # noqa: T201 - the answer is what stdout is for


if __name__ == "__main__":
    main()
