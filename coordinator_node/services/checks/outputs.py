"""Answers such as models may give: what `output_type` and the operator's validator make of made-up ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.error_places import reason_and_place_of
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.extensions.callable_resolver import call_fault
from coordinator_node.services.checks.findings import Finding, failed, fine, warning
from coordinator_node.services.checks.recorder import Recorder
from coordinator_node.services.checks.samples import samples_of
from coordinator_node.services.predict.answers import RefusedAnswerError, output_validator, read_answer

CHECK = "output"
VALIDATOR = "INFERENCE_OUTPUT_VALIDATOR"
MISTAKES = (KeyError, NameError, AttributeError, TypeError)
"""What a callable raises by mistake, rather than to refuse what it was given."""


@dataclass(frozen=True)
class MadeOutputs:
    """The outputs that could be scored, in the form in which they are stored, and what was found while making them."""

    accepted: list[dict[str, Any]]
    findings: list[Finding]


def made_outputs(config: CrunchConfig, settings: Settings) -> MadeOutputs:
    """Make answers of `output_type`, and take them as those of models are taken."""
    name = config.output_type.__name__
    samples = samples_of(config.output_type)
    if not samples:
        return MadeOutputs([], _nothing_made(name))
    try:
        validator = output_validator(settings)
    except ConfigurationError as error:
        return MadeOutputs([], failed(CHECK, str(error)))
    fault = None if validator is None else call_fault(validator, "output")
    if fault:
        return MadeOutputs([], failed(CHECK, f"{VALIDATOR}: {fault}"))
    recorder = None if validator is None else Recorder(validator)
    accepted: list[dict[str, Any]] = []
    refusal: Exception | None = None
    for sample in samples:
        try:
            accepted.append(read_answer(sample, config.output_type, recorder))
        except RefusedAnswerError as error:
            refusal = error
            if recorder is not None and isinstance(recorder.error, MISTAKES):
                mistake = f"{VALIDATOR} raised {reason_and_place_of(recorder.error)} for {sample}"
                return MadeOutputs([], failed(CHECK, mistake, "correct it: it refuses a valid answer by mistake"))
    if accepted:
        return MadeOutputs(accepted, fine(CHECK, f"{name} accepts, for example, {accepted[0]}"))
    return MadeOutputs([], warning(CHECK, f"every made-up answer of {name} is refused: {refusal}", _examples(name)))


def _nothing_made(name: str) -> list[Finding]:
    return warning(CHECK, f"no valid answer of {name} could be made up, so that nothing was scored", _examples(name))


def _examples(name: str) -> str:
    return f"give {name} some: model_config = ConfigDict(json_schema_extra={{'examples': [{{...}}, {{...}}]}})"
