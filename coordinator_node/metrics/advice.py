"""What a model's numbers mean to its owner."""

from __future__ import annotations

from collections.abc import Mapping

_COPY = 0.8
_CROWD = 0.5


def diversity_score(model_correlation: float | None) -> float | None:
    """max(0, 1 - |mean correlation with the other models|), 0 for a copy of them; None where that is unknown."""
    return None if model_correlation is None else max(0.0, 1.0 - abs(model_correlation))


def guidance(metrics: Mapping[str, float | None]) -> list[str]:
    """One sentence each about model_correlation and ic, known or not, and about fnc and contribution where known."""
    sentences = [
        _of_correlation(metrics.get("model_correlation")),
        _of_skill(metrics.get("ic")),
        _of_own_part(metrics.get("ic"), metrics.get("fnc")),
        _of_contribution(metrics.get("contribution")),
    ]
    return [sentence for sentence in sentences if sentence]


def _of_correlation(correlation: float | None) -> str:
    if correlation is None:
        return (
            "How alike the models are is not known: there are too few common predictions, or it is not computed here."
        )
    if abs(correlation) >= _COPY:
        what = "that" if correlation > 0 else "the opposite"
        return f"The signal is almost {what} of the others (correlation {correlation:.2f}): look for other inputs."
    if abs(correlation) >= _CROWD:
        what = "follows the crowd" if correlation > 0 else "is the crowd's turned round"
        return f"The signal {what} (correlation {correlation:.2f}): more of its own would be worth more."
    return f"The signal is mostly its own (correlation {correlation:.2f})."


def _of_skill(ic: float | None) -> str:
    if ic is None:
        return "Whether it predicts is not known yet: there are too few scored predictions, or they never vary."
    if ic <= 0:
        return f"It does not predict the outcome (IC {ic:.3f}): being different pays only with skill."
    return f"It predicts the outcome (IC {ic:.3f})."


def _of_own_part(ic: float | None, fnc: float | None) -> str:
    if fnc is None:
        return ""
    if fnc <= 0 and ic is not None and ic > 0:
        return f"What it predicts, the others predict too: nothing is left without them (FNC {fnc:.3f})."
    return f"Without what it shares with the others its IC is {fnc:.3f}."


def _of_contribution(contribution: float | None) -> str:
    if contribution is None:
        return ""
    if contribution > 0:
        return f"The ensemble is better with it (contribution {contribution:+.4f})."
    return f"The ensemble would not miss it (contribution {contribution:+.4f})."
