"""What a model's owner is told of its numbers."""

from __future__ import annotations

import pytest

from coordinator_node.metrics.advice import diversity_score, guidance


@pytest.mark.parametrize(
    ("correlation", "score", "said"),
    [
        (None, None, "How alike the models are is not known"),
        (0.3, 0.7, "is mostly its own (correlation 0.30)"),
        (0.5, 0.5, "follows the crowd (correlation 0.50)"),
        (-0.5, 0.5, "is the crowd's turned round (correlation -0.50)"),
        (0.8, 0.2, "almost that of the others (correlation 0.80)"),
        (-1.0, 0.0, "almost the opposite of the others (correlation -1.00)"),
    ],
)
def test_of_the_others(correlation: float | None, score: float | None, said: str) -> None:
    assert diversity_score(correlation) == (score if score is None else pytest.approx(score))
    assert said in guidance({"model_correlation": correlation})[0]


def test_of_skill_and_of_what_is_its_own() -> None:
    told = guidance({"model_correlation": 0.1, "ic": 0.04, "fnc": -0.01, "contribution": 0.002})
    assert [sentence.split(":")[0] for sentence in told[1:]] == [
        "It predicts the outcome (IC 0.040).",
        "What it predicts, the others predict too",
        "The ensemble is better with it (contribution +0.0020).",
    ]
    assert len(guidance({})) == 2, "what is not computed here is passed over"
