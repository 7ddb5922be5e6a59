"""Long series summed up by time bucket: what is kept, where it is kept, and how a span of time is put together of it.

Two tables hold sums by bucket, so that a chart over a long history is made of few rows: `prediction_buckets` over
predictions by performed_at, `snapshot_buckets` over snapshots by period_end. Buckets of LEVELS widths are kept for the
part of time that the mark names (`mark.Kept`); all else is summed up from the rows themselves.
"""

ONCE = "OFFSET '0'"
"""Ends a subquery whose expressions are to be computed once, not again wherever they are used outside.

The quotes matter: Postgres reads a bare 0 as an expression that might be anything, and then lets no other process help.
"""
