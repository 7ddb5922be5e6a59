"""History of a feed, fetched on request into daily Parquet files."""

from coordinator_node.services.backfill.service import BackfillRequest, BackfillResult, BackfillService

__all__ = ["BackfillRequest", "BackfillResult", "BackfillService"]
