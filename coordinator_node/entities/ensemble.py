"""How the virtual model of an ensemble is named, so that every layer can tell it from a real one."""

from __future__ import annotations

ENSEMBLE_PREFIX = "__ensemble_"
ENSEMBLE_SUFFIX = "__"


def ensemble_model_id(name: str) -> str:
    """The model id of the ensemble `name`: `__ensemble_<name>__`."""
    return f"{ENSEMBLE_PREFIX}{name}{ENSEMBLE_SUFFIX}"


def is_ensemble_model(model_id: str) -> bool:
    """Whether `model_id` is that of an ensemble."""
    long_enough = len(model_id) > len(ENSEMBLE_PREFIX) + len(ENSEMBLE_SUFFIX)
    return long_enough and model_id.startswith(ENSEMBLE_PREFIX) and model_id.endswith(ENSEMBLE_SUFFIX)


def ensemble_name_of(model_id: str) -> str:
    """The name of the ensemble whose model id this is."""
    return model_id.removeprefix(ENSEMBLE_PREFIX).removesuffix(ENSEMBLE_SUFFIX)
