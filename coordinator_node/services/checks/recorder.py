"""Stands before an operator's callable and notes how it fared."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from coordinator_node.entities.errors import RAISED_BY_CALLABLES


class NotedDict(dict[str, Any]):
    """A dict that remembers which keys were looked for in vain."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.missed: set[str] = set()

    def __missing__(self, key: str) -> Any:
        self.missed.add(key)
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As a dict's."""
        if key not in self:
            self.missed.add(key)
        return super().get(key, default)


class Recorder:
    """A callable in the place of another; its signature and name are those of the other.

    Attributes:
        error: what the last call raised; None where it raised nothing.
        returned: what the last call returned; None where it raised.
        arguments: what the last call was given, dicts as NotedDict; those at `as_they_are` are handed on themselves,
            because the function may change them.
    """

    def __init__(self, function: Callable[..., Any], as_they_are: tuple[int, ...] = ()) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._as_they_are = as_they_are
        self.error: BaseException | None = None
        self.returned: Any = None
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function, and note what comes of it."""
        self.error = self.returned = None
        self.arguments = tuple(
            NotedDict(value) if type(value) is dict and place not in self._as_they_are else value
            for place, value in enumerate(arguments)
        )
        try:
            self.returned = self._function(*self.arguments, **named)
        except RAISED_BY_CALLABLES as error:  # noted, and raised again for the engine to do with as it does live
            self.error = error
            raise
        return self.returned
