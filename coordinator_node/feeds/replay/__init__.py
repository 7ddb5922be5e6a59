"""The replay source: a file of real records, played over and over on the wall clock."""

from __future__ import annotations

from coordinator_node.feeds.replay.source import ReplayFeed, parse_speed
from coordinator_node.feeds.replay.tape_file import FileDescription, describe_file

__all__ = ["FileDescription", "ReplayFeed", "describe_file", "parse_speed"]
