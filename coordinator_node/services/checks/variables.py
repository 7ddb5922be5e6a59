"""Variables of the environment that look like the engine's and are not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from coordinator_node.config.settings import OPTION_PREFIX, variable_names
from coordinator_node.services.checks.findings import Finding, warning

CHECK = "variables"
OWN_PREFIXES = ("FEED_", "API_")
"""Nobody else's variables begin so, and so every unknown one is a mistake."""

LIKENESS = 0.85
"""From which likeness on (difflib's ratio) another variable is taken for a misspelt one of the engine."""


def unknown_variables(names: Iterable[str]) -> list[Finding]:
    """A warning for each name that the engine does not read, though it looks as if it should; [] for none."""
    known = [each for choices in variable_names().values() for each in choices]
    found: list[Finding] = []
    for name in sorted(set(names) - set(known)):
        if name.startswith(OPTION_PREFIX):
            continue
        meant = _meant(name, known)
        if meant or name.startswith(OWN_PREFIXES):
            remedy = f"did you mean {meant}?" if meant else "take it out, or see .local.env.example for those there are"
            found += warning(CHECK, f"{name} is no variable of the engine and has no effect", remedy)
    return found


def _meant(name: str, known: list[str]) -> str | None:
    begun = next((each for each in known if "_" in name and each.startswith(f"{name}_")), None)
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=LIKENESS if not begun else 0.95)
    own = name.startswith(OWN_PREFIXES)
    looser = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.7) if own else []
    return next(iter(near), None) or begun or next(iter(looser), None)
