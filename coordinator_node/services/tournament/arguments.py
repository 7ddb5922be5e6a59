"""What a model is asked for one feature row: the scope of its prediction, and the arguments of its method. Pure."""

from __future__ import annotations

from typing import Any

from coordinator_node.crunch_config import CallMethodConfig, CrunchConfig
from coordinator_node.services.tournament.errors import RoundInputError

# What the wire's INT holds.
_LEAST_INT, _MOST_INT = -(2**63), 2**63 - 1


def scope_key_of(round_id: str) -> str:
    """The scope_key of a round's predictions."""
    return f"round:{round_id}"


def row_scope(config: CrunchConfig, row: dict[str, Any], round_id: str, feature_index: int) -> dict[str, Any]:
    """What is predicted for a row: the config's scope, overridden by the row's fields of the same names.

    With it `round_id`, `feature_index`, and `resolve_horizon_seconds`, which is 0: a round has no horizon.
    """
    scope = {**config.scope.model_dump(mode="json"), "resolve_horizon_seconds": 0}
    own = {name: row[name] for name in scope if name in row}
    return {**scope, **own, "round_id": round_id, "feature_index": feature_index}


def row_arguments(method: CallMethodConfig, row: dict[str, Any], scope: dict[str, Any]) -> list[tuple[str, Any]]:
    """The method's arguments as (type, value), each found by its name.

    `features` is the row as a whole, `scope` its scope, `round_id` and `feature_index` say which row it is; any other
    name is a field of the row, or else of the scope.

    Raises:
        RoundInputError: an argument that nothing holds, or whose value is not of its type.
    """
    which = {"round_id": scope["round_id"], "feature_index": scope["feature_index"]}
    named = {**scope, **row, "features": row, "scope": scope, **which}
    where = f"features[{scope['feature_index']}]"
    missing = [arg.name for arg in method.args if arg.name not in named]
    if missing:
        raise RoundInputError(
            f"{where}: call_method {method.method} needs {', '.join(missing)}, which neither the row nor the scope"
            " holds; an argument named features receives the whole row"
        )
    return [(arg.type, _converted(arg.type, named[arg.name], f"{where}.{arg.name}")) for arg in method.args]


def _converted(kind: str, value: Any, where: str) -> Any:
    if kind == "JSON":
        return value
    if kind == "STRING":
        return str(value)
    try:
        number = int(value) if kind == "INT" else float(value)
    except (TypeError, ValueError, OverflowError):
        raise RoundInputError(f"{where} is no {kind}, as call_method needs it") from None
    if isinstance(number, int) and not _LEAST_INT <= number <= _MOST_INT:
        raise RoundInputError(f"{where} does not fit into 64 bits, as an INT of call_method must")
    return number
