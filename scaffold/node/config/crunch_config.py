"""The competition as the node runs it: what the challenge says, and what only the operator decides."""

from __future__ import annotations

from starter_challenge.config import CrunchConfig as ChallengeConfig


class CrunchConfig(ChallengeConfig):
    """What only the node decides; on-chain addresses are set in the environment, as CRUNCH_PUBKEY and the like."""
