"""Made-up answers are valid, differ from each other, and keep to what a type says."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from coordinator_node.services.checks.samples import samples_of
from coordinator_node.services.checks.variables import unknown_variables


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class Bounded(BaseModel):
    value: float = Field(gt=0, lt=1)
    count: int = Field(ge=3, le=5)
    side: Side
    direction: Literal["up", "down"]
    sure: bool
    at: datetime
    note: str | None = Field(min_length=8, max_length=9)


class Shares(BaseModel):
    weights: list[float] = Field(min_length=3, max_length=3)

    @model_validator(mode="after")
    def _sum_to_one(self) -> Shares:
        if abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError("weights must sum to 1")
        return self


class Falling(BaseModel):
    high: float
    low: float

    @model_validator(mode="after")
    def _in_order(self) -> Falling:
        if not self.high > self.low:
            raise ValueError("high must be above low")
        return self


class Nested(BaseModel):
    inner: Bounded
    by_asset: dict[str, Falling]


class Coded(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "Q1"}, {"code": "Q2"}, {"code": "wrong"}]})

    code: str = Field(pattern="^Q[0-9]$")


class Recursive(BaseModel):
    value: float
    children: list[Recursive] = []


class Thing:
    pass


class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    thing: Thing


@pytest.mark.parametrize("model", [Bounded, Shares, Falling, Nested, Recursive])
def test_samples_are_valid_and_differ(model: type[BaseModel]) -> None:
    made = samples_of(model)
    assert len(made) >= 2
    assert all(model.model_validate(each) for each in made)
    assert len({repr(each) for each in made}) == len(made)


def test_choices_and_unbounded_numbers_are_tried_on_both_sides() -> None:
    made = samples_of(Bounded)
    assert {each["side"] for each in made} == {"buy", "sell"}
    assert {each["sure"] for each in made} == {True, False}
    values = [each["value"] for each in samples_of(Recursive)]
    assert min(values) < -100
    assert max(values) > 100


def test_the_types_own_examples_are_used_where_they_are_valid() -> None:
    assert samples_of(Coded) == [{"code": "Q1"}, {"code": "Q2"}]


def test_of_a_type_without_a_schema_nothing_is_made() -> None:
    assert samples_of(Odd) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("FEED_SUBJECT", "did you mean FEED_SUBJECTS?"),
        ("feed_source", "did you mean FEED_SOURCE?"),
        ("CRUNCH_PUB_KEY", "did you mean CRUNCH_PUBKEY?"),
        ("SCORE_INTERVAL", "did you mean SCORE_INTERVAL_SECONDS?"),
        ("POSTGRES_PASS", "did you mean POSTGRES_PASSWORD?"),
        ("API_READ_AUTHS", "did you mean API_READ_AUTH?"),
        ("FEED_COLOUR_OF_ALL", "take it out"),
    ],
)
def test_a_misspelt_variable_is_found_with_what_was_meant(name: str, said: str) -> None:
    (finding,) = unknown_variables([name, "FEED_SOURCE", "PATH"])
    assert finding.message.startswith(f"{name} is no variable")
    assert said in finding.remedy


def test_variables_of_others_are_left_alone() -> None:
    others = ["PATH", "HOME", "HOSTNAME", "PWD", "LANG", "OPENAI_API_KEY", "AWS_REGION", "POSTGRES_HOST_AUTH_METHOD"]
    others += ["FEED_OPT_anything", "FEED_ASSETS", "PYTHONPATH", "LOGNAME", "NO_COLOR", "DATABASE_NAME", "http_proxy"]
    assert unknown_variables(others) == []
