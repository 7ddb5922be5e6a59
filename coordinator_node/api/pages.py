"""Long lists in pages: a cursor says after which row the next page begins, so that new rows shift nothing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, HTTPException, Query, Request, Response
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

NEXT_CURSOR = "X-Next-Cursor"
# Not repeated in an address that may be kept.
_KEY = "api_key"

PAGED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            NEXT_CURSOR: {
                "description": "The `cursor` of the next page; absent on the last one.",
                "schema": {"type": "string"},
            },
            "Link": {
                "description": 'The next page\'s address, as `<address>; rel="next"`; absent on the last one.',
                "schema": {"type": "string"},
            },
        }
    }
}
"""The part of an endpoint's `responses` that says that it has pages."""


class Pages:
    """One request's place in a list, and what its answer says of the next."""

    def __init__(self, request: Request, response: Response, cursor: str | None) -> None:
        self._request = request
        self._response = response
        self._cursor = cursor
        self._list: str = request.scope["route"].path
        self.next: dict[str, str] = {}
        """The headers that name the next page; for answers that are made by hand."""

    @property
    def begun(self) -> bool:
        """Whether the request asks for a page after the first."""
        return self._cursor is not None

    def after[Place](self, place: type[Place]) -> Place | None:
        """The place of the last row of the page before; None for the first page.

        Raises:
            HTTPException: 422, the cursor is none of this list.
        """
        if self._cursor is None:
            return None
        try:
            decoded = base64.b64decode(self._cursor.encode(), altchars=b"-_", validate=True)
            # Places of several lists look alike, and would be read as one of this list's.
            of_list, found = TypeAdapter(tuple[str, place]).validate_json(decoded)  # type: ignore[valid-type] # a generic's own type
        except (binascii.Error, UnicodeError, ValidationError):
            of_list, found = None, None
        if found is None or of_list != self._list or b"\\u0000" in decoded:
            raise HTTPException(422, f"cursor: take it from {NEXT_CURSOR} of the page before, with the same parameters")
        return found

    def page[Row](self, rows: Sequence[Row], limit: int, place_of: Callable[[Row], Sequence[Any]]) -> list[Row]:
        """The rows of this page, of at least one row more than `limit` if there is one; names the next page if so."""
        shown = list(rows[:limit])
        if len(rows) > limit:
            cursor = base64.urlsafe_b64encode(to_json([self._list, place_of(shown[-1])])).decode()
            kept = [
                (name, value)
                for name, value in self._request.query_params.multi_items()
                if name not in ("cursor", _KEY)
            ]
            query = urlencode([*kept, ("cursor", cursor)])
            self.next = {NEXT_CURSOR: cursor, "Link": f'<{self._request.url.path}?{query}>; rel="next"'}
            self._response.headers.update(self.next)
        return shown


async def _pages(
    request: Request,
    response: Response,
    cursor: Annotated[
        str | None,
        Query(description=f"Where the page begins: {NEXT_CURSOR} of the page before.", max_length=2000),
    ] = None,
) -> Pages:
    return Pages(request, response, cursor)


Paging = Annotated[Pages, Depends(_pages)]
