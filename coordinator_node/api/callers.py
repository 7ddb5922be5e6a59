"""Who sent a request, for what is to be remembered of it."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from coordinator_node.api.context import Context
from coordinator_node.entities.ids import new_id
from coordinator_node.services.payout import Mover

REQUEST_ID = "X-Request-ID"
_USABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")


async def _mover(
    request: Request,
    response: Response,
    context: Context,
    request_id: Annotated[
        str | None,
        Header(alias=REQUEST_ID, description="Kept with the move, and answered; one is made where it is left out."),
    ] = None,
) -> Mover:
    # One that a proxy made too long or odd is replaced: it is no reason to refuse a payout.
    known = request_id if request_id and _USABLE_ID.fullmatch(request_id) else new_id()
    response.headers[REQUEST_ID] = known
    right = "with the key" if context.settings.api_key.get_secret_value() else "without a key"
    address = request.client.host if request.client else "an unknown address"
    return Mover(f"report API {right}, from {address}", known)


Caller = Annotated[Mover, Depends(_mover)]
