"""An engine that runs live forecasting competitions.

Five worker processes share one Postgres: feed, predict, score, checkpoint and report. What an operator may
override is in `coordinator_node.crunch_config`; docs/architecture.md describes the rest.
"""
