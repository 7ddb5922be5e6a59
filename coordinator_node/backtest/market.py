"""What models are ticked with as time moves on: windows kept up record by record, never beyond the present moment."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import from_json

from coordinator_node.backtest.history import History, SubjectHistory
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.predict.due import NO_INPUT
from coordinator_node.services.predict.raw_input import InputBuilderError, SubjectInputs, encoded

type Document = dict[str, Any]

_NEVER = datetime.max.replace(tzinfo=UTC)


class _Subject:
    """One subject: how many of its records are known, when the next will be, and the document that the models have."""

    def __init__(self, name: str, history: SubjectHistory, inputs: SubjectInputs, window: int, lag: timedelta) -> None:
        self.name = name
        self.count = 0
        self.given: Document | None = None
        self._inputs = inputs
        self._window = window
        self._times = history.times
        # Each record's part of a document is made once; what is handed out are copies.
        self._items = [inputs.item(record.ts_event, record.values) for record in history.records]
        self._coming = iter([time + lag for time in history.times] if lag else history.times)
        self.next_at = next(self._coming, _NEVER)

    def advance(self, moment: datetime) -> int:
        """Take up what is known at a moment; how many records that were."""
        before = self.count
        while self.next_at <= moment:
            self.count += 1
            self.next_at = next(self._coming, _NEVER)
        return self.count - before

    def document(self) -> Document:
        """The document of the newest records, not to be changed by anybody.

        Raises:
            InputBuilderError: see `SubjectInputs.checked`.
        """
        newest = self._items[max(self.count - self._window, 0) : self.count]
        last = self._times[self.count - 1]
        if self._inputs.plain:
            return self._inputs.document(self.name, last, newest)
        # The operator's builder may change what it is given.
        made = self._inputs.checked(self.name, self._inputs.document(self.name, last, copy.deepcopy(newest)))
        read: Document = from_json(encoded(made))
        return read

    def copied(self, document: Document) -> Document:
        """A document of the caller's own."""
        if self._inputs.plain and self._inputs.priced:
            return {**document, "candles_1m": [item.copy() for item in document["candles_1m"]]}
        read: Document = from_json(encoded(document))
        return read


class Market:
    """The inputs of one backtest. Time only moves forward.

    `problem` says why there is no input at this moment, as the reason of a missed slot does; None where there is one.
    """

    def __init__(self, history: History, config: CrunchConfig, settings: Settings) -> None:
        inputs = SubjectInputs(config, settings)
        self._subjects = [
            _Subject(name, own, inputs, settings.feed_candles_window, history.feed.lag)
            for name, own in history.subjects.items()
        ]
        self._several = len(settings.feed_subjects) > 1
        self._changed: dict[str, _Subject] = {}
        self._next_at = min(subject.next_at for subject in self._subjects)
        self.problem: str | None = NO_INPUT
        self.bars = 0

    def ticks_until(self, moment: datetime) -> Iterator[Document]:
        """Go to a moment by way of all before it at which something becomes known: the ticks of each, in order."""
        while self._next_at <= moment:
            yield from self.move_to(self._next_at)

    def move_to(self, moment: datetime) -> Sequence[Document]:
        """Go to a moment; the documents that models are ticked with there, each their own.

        As live: an input that the builder refuses is skipped as a whole, and comes with the next; a subject whose
        document is the same as before is not sent again.
        """
        for subject in self._subjects:
            if subject.next_at <= moment:
                self.bars += subject.advance(moment)
                self._changed[subject.name] = subject
        self._next_at = min([subject.next_at for subject in self._subjects])
        if not self._changed:
            return ()
        try:
            made = [(subject, subject.document()) for subject in self._changed.values()]
        except InputBuilderError as error:
            self.problem = str(error)
            return ()
        self._changed, self.problem = {}, None
        ticks = []
        for subject, document in made:
            if document != subject.given:
                subject.given = document
                ticks.append(subject.copied(document))
        return ticks

    def raw_data(self) -> Document:
        """What `inputs.raw_data_jsonb` would hold at this moment, the caller's own."""
        given = {subject.name: subject.copied(subject.given) for subject in self._subjects if subject.given is not None}
        return {"subjects": given} if self._several else next(iter(given.values()))
