"""What a client is told when something goes wrong: `{"detail": …}`, never a traceback, SQL or what it sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse

from coordinator_node.api.sessions import STATEMENT_SECONDS
from coordinator_node.db.failures import one_line, reached_server, sqlstate
from coordinator_node.entities.errors import TemporaryError
from coordinator_node.entities.moves import IllegalMoveError
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.payout import UnknownCheckpointError, UnusableCheckpointError
from coordinator_node.services.tournament.errors import RoundConflictError, RoundInputError, UnknownRoundError

log = get_logger(__name__)

# Postgres's code for a statement that was cancelled, by its timeout or because the API ends.
QUERY_CANCELED = "57014"

# Postgres's code for a query on a replica that held up what came from the primary.
SERIALIZATION_FAILURE = "40001"


# FastAPI's words for a body that its parser cannot take: nested too deep, of another encoding, with an endless number.
UNPARSABLE = "There was an error parsing the body"
UNREADABLE = "must be a JSON object, in UTF-8, sent with Content-Type: application/json"


def install_error_answers(app: FastAPI) -> None:
    """Answer every error of the application in one form."""
    app.add_exception_handler(RequestValidationError, _bad_input)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(UnknownCheckpointError, _not_found)
    app.add_exception_handler(UnusableCheckpointError, _conflict)
    app.add_exception_handler(IllegalMoveError, _conflict)
    app.add_exception_handler(UnknownRoundError, _not_found)
    app.add_exception_handler(RoundConflictError, _conflict)
    app.add_exception_handler(RoundInputError, _refused)
    app.add_exception_handler(TemporaryError, _unavailable)
    app.add_exception_handler(DBAPIError, _database_failed)
    app.add_exception_handler(PoolTimeoutError, _busy)
    app.add_exception_handler(Exception, _unexpected)


def not_found(what: str) -> HTTPException:
    """A 404 that names what there is none of."""
    return HTTPException(404, f"there is no {what}")


async def _bad_input(request: Request, error: Exception) -> JSONResponse:
    # Without what was sent: it may be a key, or text that cannot be sent back.
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    detail = [{"loc": list(f["loc"]), "msg": _said_of(f), "type": f["type"]} for f in faults]
    return JSONResponse({"detail": detail}, 422)


def _said_of(fault: dict[str, Any]) -> str:
    """What is wrong; a body that came as text because its type is another's is said to be no JSON object."""
    whole_body = tuple(fault["loc"]) == ("body",)
    return UNREADABLE if whole_body and fault["type"] == "model_attributes_type" else str(fault["msg"])


async def _http_error(request: Request, error: Exception) -> Response:
    """As FastAPI answers, but a body that it cannot parse is bad input like any other."""
    if not isinstance(error, StarletteHTTPException):
        raise error
    if error.status_code == 400 and error.detail == UNPARSABLE:
        return JSONResponse({"detail": [{"loc": ["body"], "msg": UNREADABLE, "type": "json_invalid"}]}, 422)
    return await http_exception_handler(request, error)


async def _not_found(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 404)


async def _conflict(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 409)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 503)


async def _busy(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "too many requests at once: all connections to the database are busy"}, 503)


async def _database_failed(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, DBAPIError):
        raise error
    if isinstance(error, DataError) and sqlstate(error) is None:
        # The driver itself refused a value, as a NUL in text; an operator's endpoint let it through.
        return JSONResponse({"detail": "something in the request is no value that a database can hold"}, 422)
    if not reached_server(error):
        return JSONResponse({"detail": "the database does not answer; try again"}, 503)
    if sqlstate(error) == QUERY_CANCELED:
        return JSONResponse({"detail": f"this took longer than {STATEMENT_SECONDS} s: ask for a shorter range"}, 503)
    if sqlstate(error) == SERIALIZATION_FAILURE:
        return JSONResponse({"detail": "the read replica changed what was being read; try again"}, 503)
    log.error("the database refused a statement", path=request.scope["path"], reason=one_line(error))
    return JSONResponse({"detail": "internal error; the log says more"}, 500)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "internal error; the log says more"}, 500)
