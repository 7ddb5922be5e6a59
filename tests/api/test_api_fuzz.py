"""Questions that nobody thought of, made from the OpenAPI page: every answer must be one that the page promises.

FUZZ_CASES says how many; `make fuzz-api` asks 2,000.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from api_cases import report_app
from hypothesis import HealthCheck, given, seed, settings
from report_rows import seed_everything
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.tournament_predict import TournamentPredictService

CASES = int(os.environ.get("FUZZ_CASES", "60"))
# With all the endpoints that there are.
TOURNAMENT = CrunchConfig(predict_service_class=TournamentPredictService)
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture
def operations(engine: Engine) -> list[Any]:
    seed_everything(engine)
    schema = schemathesis.openapi.from_asgi("/openapi.json", report_app(engine, TOURNAMENT))
    return [found.ok() for found in schema.get_all_operations()]


def test_every_answer_is_one_that_the_page_promises(operations: list[Any]) -> None:
    """An equal share of the cases for each operation, the same ones every time.

    Operations of which there is little to ask leave their share to the next round.
    """
    asked, rounds = 0, 0
    while asked < CASES:
        share = -((asked - CASES) // len(operations))
        asked += sum(ask_about(operation, share, rounds) for operation in operations)
        rounds += 1


def ask_about(operation: Any, share: int, rounds: int) -> int:
    """At most so many cases of one operation, others in each round; how many there were."""
    asked = 0

    @seed(rounds)
    @settings(
        max_examples=share, database=None, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        case.call_and_validate(checks=CHECKS)

    ask()
    return asked
