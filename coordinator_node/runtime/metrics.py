"""What a process counts for Prometheus: its stages' passes, and, in the report API, its requests.

A worker either serves its own figures, on WORKER_METRICS_PORT, or writes them beside its heartbeat, from where the
report API's /metrics shows them; never both, so that nothing is counted twice. A report worker's own are on its
/metrics anyway.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.leases import LeaseLostError
from coordinator_node.runtime.loop import PassResult, Step

PASS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# What a stranger's model or an operator's code raised becomes a label's value: so many, and no more, of each stage.
MOST_REASONS = 50
MOST_REASON_CHARACTERS = 80
OTHER = "other"

REGISTRY = CollectorRegistry()
PASSES = Counter(
    "coordinator_stage_passes_total",
    "Passes of a stage, by what came of them: worked, idle or failed.",
    ["stage", "outcome"],
    registry=REGISTRY,
)
ROWS = Counter(
    "coordinator_stage_rows_total",
    "Rows that a stage dealt with, by what it did to them.",
    ["stage", "what"],
    registry=REGISTRY,
)
FAILURES = Counter(
    "coordinator_stage_failures_total",
    "What failed in a stage, by reason: single rows, and passes by the type of their error.",
    ["stage", "reason"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "coordinator_stage_pass_seconds",
    "How long passes of a stage took.",
    ["stage"],
    buckets=PASS_SECONDS,
    registry=REGISTRY,
)

type Sample = tuple[str, dict[str, str], float]
"""A sample's name, labels and value."""
type Samples = dict[str, list[Sample]]
"""Samples by the name of their metric."""

_reasons: defaultdict[str, set[str]] = defaultdict(set)
_reasons_lock = threading.Lock()


def count_failure(stage: str, reason: str, rows: int = 1) -> None:
    """Count rows that failed. Of the reason only what stands before its first colon is kept; the rest varies."""
    kind = reason.partition(":")[0].strip()[:MOST_REASON_CHARACTERS] or OTHER
    with _reasons_lock:
        known = _reasons[stage]
        if kind not in known and len(known) >= MOST_REASONS:
            kind = OTHER
        known.add(kind)
    FAILURES.labels(stage, kind).inc(rows)


def measured(stage: str, step: Step) -> Step:
    """The same step, with its passes counted and timed."""

    async def run() -> PassResult:
        begin = time.perf_counter()
        try:
            result = await step()
        except (ConfigurationError, LeaseLostError):
            raise
        except Exception as error:  # whatever a pass raises is counted, and the loop decides what becomes of it
            PASSES.labels(stage, "failed").inc()
            count_failure(stage, type(error).__name__)
            raise
        finally:
            SECONDS.labels(stage).observe(time.perf_counter() - begin)
        PASSES.labels(stage, "idle" if result.idle else "worked").inc()
        for what, rows in result.counts.items():
            if rows:
                ROWS.labels(stage, what).inc(rows)
        return result

    return run


def samples() -> Samples:
    """The figures of this process, in a form that JSON holds."""
    return {
        metric.name: [(s.name, dict(s.labels), float(s.value)) for s in metric.samples] for metric in _kept(REGISTRY)
    }


def exposition(others: Iterable[tuple[str, Samples]] = (), more: Iterable[Metric] = ()) -> bytes:
    """Prometheus's text of this process's figures, those of other workers, labelled by their ids, and more.

    Args:
        others: worker ids and what `samples` gave there. Metrics that this version does not know are left out.
        more: further metrics.
    """
    registry = CollectorRegistry()
    registry.register(_Merged(list(others), list(more)))
    return generate_latest(registry)


def serve_metrics(host: str, port: int) -> WSGIServer:
    """Serve this process's figures from a thread of its own.

    Raises:
        OSError: the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(_Merged([], []))
    return start_http_server(port, host, registry)[0]


class _Merged(Collector):
    """Figures of several workers under one name each, as the format demands."""

    def __init__(self, others: list[tuple[str, Samples]], more: list[Metric]) -> None:
        self._others = others
        self._more = more

    def describe(self) -> list[Metric]:
        """Nothing: what there is, is only known when it is collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric once, with the samples of all."""
        for metric in _kept(REGISTRY):
            for worker_id, theirs in self._others:
                for name, labels, value in theirs.get(metric.name, ()):
                    metric.add_sample(name, {**labels, "worker": worker_id}, value)
            yield metric
        yield from self._more


def _kept(registry: CollectorRegistry) -> Iterator[Metric]:
    """The registry's metrics without when each sample began, which would double their number."""
    for metric in registry.collect():
        metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
        yield metric
