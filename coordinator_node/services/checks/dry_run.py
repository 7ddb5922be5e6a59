"""Made-up answers scored by made-up outcomes, through the very functions that score live."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.error_places import place_of
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.extensions.default_callables import default_score_prediction
from coordinator_node.services.checks.findings import Finding, did_you_mean, failed, fine, warning
from coordinator_node.services.checks.outputs import MISTAKES
from coordinator_node.services.checks.recorder import NotedDict, Recorder
from coordinator_node.services.checks.truths import Truth, Truths, made_truths
from coordinator_node.services.score.scoring import Scorer, Verdict, check_parameters, named_function

CHECK = "scoring"
SECONDS = 3.0
"""So long is scored; a function that takes its time is not called for every case."""

DEFAULT_IN_USE = (
    "every prediction will score 0: the default scoring function is in use; "
    "set SCORING_FUNCTION=module:callable or the config's scoring_function"
)


@dataclass(frozen=True)
class Scored:
    """One output, by its place among those made, scored by one outcome."""

    place: int
    output: dict[str, Any]
    truth: Truth
    result: dict[str, Any]


@dataclass(frozen=True)
class DryRun:
    """The outcomes, the scores there are, and what was found about the scoring function."""

    truths: Truths
    scored: list[Scored]
    findings: list[Finding]


@dataclass(frozen=True)
class _Failure:
    """One case without a score. `declined` says that the function itself said success=False."""

    reason: str
    remedy: str
    mistake: bool
    declined: bool


def dry_run(config: CrunchConfig, settings: Settings, outputs: list[dict[str, Any]]) -> DryRun:
    """Score every output by every outcome."""
    truths = made_truths(config, settings)
    try:
        function = named_function(config, settings)
        check_parameters(function, stateful=config.stateful_scoring and function is not default_score_prediction)
    except ConfigurationError as error:
        return DryRun(truths, [], failed(CHECK, str(error)))
    if function is default_score_prediction:
        scored = [Scored(0, each, truth, function(each, truth.values)) for each in outputs for truth in truths.known]
        return DryRun(truths, scored, warning(CHECK, DEFAULT_IN_USE))
    if not outputs or not truths.known:
        reason = "there is no valid output" if not outputs else "there is no ground truth"
        return DryRun(truths, [], warning(CHECK, f"not tried, because {reason} to score; see above"))
    recorder = Recorder(function, as_they_are=(2,))
    scorer = Scorer(config.model_copy(update={"scoring_function": recorder}), settings)
    scored, failures, missed = _scored(scorer, recorder, config, outputs, truths.known)
    findings = _of_failures(failures, len(scored)) or _of_answers(scored, missed, config)
    return DryRun(truths, scored, findings or fine(CHECK, f"{len(scored)} made-up cases: {_shown(scored)}"))


def _scored(
    scorer: Scorer, recorder: Recorder, config: CrunchConfig, outputs: list[dict[str, Any]], truths: list[Truth]
) -> tuple[list[Scored], list[_Failure], set[str]]:
    """The scores, the failures, and the keys that the function looked for in a prediction in vain."""
    scored: list[Scored] = []
    failures: list[_Failure] = []
    missed: set[str] = set()
    until = time.monotonic() + SECONDS
    for truth in truths:
        # One model's predictions, one after another, as a function that keeps state expects them.
        state: dict[str, Any] | None = {} if config.stateful_scoring else None
        for place, output in enumerate(outputs):
            if time.monotonic() > until:
                return scored, failures, missed
            verdict = scorer.score("made-up-prediction", "made-up-model", output, truth.values, state)
            if recorder.arguments:
                missed |= recorder.arguments[0].missed
            if verdict.success and verdict.result is not None:
                scored.append(Scored(place, output, truth, verdict.result))
            else:
                failures.append(_failure(verdict, recorder, output))
    return scored, failures, missed


def _failure(verdict: Verdict, recorder: Recorder, output: dict[str, Any]) -> _Failure:
    error, returned = recorder.error, recorder.returned
    if error is None:
        declined = isinstance(returned, Mapping) and returned.get("success") is False
        return _Failure(verdict.failed_reason or "", "", mistake=False, declined=declined)
    place = place_of(error)
    reason = f"{verdict.failed_reason}{f' ({place})' if place else ''}"
    key = error.args[0] if isinstance(error, KeyError) and error.args else None
    for name, given in zip(("prediction", "ground truth"), recorder.arguments, strict=False):
        if isinstance(given, NotedDict) and key in given.missed:
            reason += f": the {name} has no {key!r}; it has {', '.join(sorted(given))}"
            return _Failure(reason, did_you_mean(str(key), given), mistake=True, declined=False)
    return _Failure(f"{reason} for {output}", "", mistake=isinstance(error, MISTAKES), declined=False)


def _of_failures(failures: list[_Failure], succeeded: int) -> list[Finding]:
    """A finding for each different reason that tells of a mistake; what the function declines at times may be meant."""
    findings: dict[str, Finding] = {}
    for failure in failures:
        if failure.declined and succeeded:
            continue
        level = failed if failure.mistake or not succeeded else warning
        said = f"the scoring function fails for valid outputs: {failure.reason}"
        # What differs between cases is the output at the end.
        findings.setdefault(failure.reason.partition(" for {")[0], level(CHECK, said, failure.remedy)[0])
    return list(findings.values())[:3]


def _of_answers(scored: list[Scored], missed: set[str], config: CrunchConfig) -> list[Finding]:
    by_truth: dict[int, dict[int, Any]] = {}
    by_output: dict[int, dict[int, Any]] = {}
    for each in scored:
        value = each.result.get(config.aggregation.value_field, each.result)
        by_truth.setdefault(id(each.truth), {})[each.place] = value
        by_output.setdefault(each.place, {})[id(each.truth)] = value
    if len(by_output) > 1 and _all_alike(by_truth):
        looked_for = f"; it looked for {', '.join(sorted(map(repr, missed)))} in vain" if missed else ""
        message = f"{len(by_output)} different predictions get the same score{looked_for}: {_shown(scored)}"
        remedy = "score the fields of output_type: " + ", ".join(config.output_type.model_fields)
        # What is kept from earlier predictions may need more of them than were tried.
        return (warning if config.stateful_scoring else failed)(CHECK, message, remedy)
    if len(by_truth) > 1 and not config.stateful_scoring and _all_alike(by_output):
        return warning(CHECK, "a prediction gets the same score whatever happened", "does it look at the ground truth?")
    return []


def _all_alike(groups: dict[int, dict[int, Any]]) -> bool:
    return all(each == next(iter(group.values())) for group in groups.values() for each in group.values())


def _shown(scored: list[Scored]) -> str:
    shown = [f"{each.output} scores {each.result.get('value', each.result)}" for each in scored[:2]]
    return ", ".join(shown)
