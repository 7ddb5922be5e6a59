"""price-moves: what crunchers install."""

from price_moves.scoring import score_prediction
from price_moves.tracker import TrackerBase

__all__ = ["TrackerBase", "score_prediction"]
