"""Errors as problem details: `application/problem+json`, as RFC 9457 has it.

What a client can mend is said in full. What it cannot, an execution that failed or a store that is away, is said by
`code`, `execution_id` and status; the text goes into the log, as it may show how things are made within.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast, final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from durable import (
    CompensationFailed,
    DurableError,
    ExecutionCancelled,
    ExecutionClosed,
    ExecutionEnded,
    ExecutionNotFound,
    InvalidInput,
    KeyConflict,
    LimitReached,
    NotRunning,
    NotSerializable,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueUnavailable,
    ScheduleNotFound,
    StoreFull,
    StoreUnavailable,
    WaitTimeout,
    WrongStatus,
)

log = logging.getLogger("durable.fastapi")

RETRY_AFTER_S: Final = 5

_STATUS: Final[Mapping[type[DurableError], HTTPStatus]] = {
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotSerializable: HTTPStatus.UNPROCESSABLE_ENTITY,
    PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ExecutionNotFound: HTTPStatus.NOT_FOUND,
    ScheduleNotFound: HTTPStatus.NOT_FOUND,
    KeyConflict: HTTPStatus.CONFLICT,
    ExecutionClosed: HTTPStatus.CONFLICT,
    WrongStatus: HTTPStatus.CONFLICT,
    ExecutionCancelled: HTTPStatus.CONFLICT,
    WaitTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    NotRunning: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreFull: HTTPStatus.SERVICE_UNAVAILABLE,
    QueueUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    OutcomeUnknown: HTTPStatus.SERVICE_UNAVAILABLE,
    LimitReached: HTTPStatus.INTERNAL_SERVER_ERROR,
    CompensationFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
}

Handler: TypeAlias = Callable[[Request, Exception], Awaitable[Response]]


@final
class Problem(JSONResponse):
    """One problem, as `application/problem+json`. `more` are members beside those that the RFC names."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        *,
        type: str = "about:blank",
        title: str | None = None,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: object,
    ) -> None:
        members: dict[str, object] = {"type": type, "title": title or _phrase(status), "status": status}
        if detail:
            members["detail"] = detail
        given = {name: value for name, value in more.items() if value is not None}
        super().__init__({**given, **members}, status_code=status, headers=headers)


def add_problems(app: FastAPI, *, types: str | None = None) -> None:
    """Answer durable's errors, refused requests, `HTTPException`s and whatever else is raised with problem details.

    `types` is what the URI of a problem's `type` begins with, and the error's code ends: the page where you explain
    them. Without it a durable error is told by its member `code`.
    """

    async def durable_error(request: Request, error: Exception) -> Response:
        return problem_of(cast("DurableError", error), types)

    async def http_error(request: Request, error: Exception) -> Response:
        raised = cast("HTTPException", error)
        if raised.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            return Response(status_code=raised.status_code, headers=raised.headers)
        is_text = isinstance(cast("object", raised.detail), str)
        detail = raised.detail if is_text and raised.detail != _phrase(raised.status_code) else None
        return Problem(raised.status_code, detail=detail, headers=raised.headers)

    async def refused(request: Request, error: Exception) -> Response:
        found = cast("RequestValidationError", error).errors()
        return Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, detail="The request is not valid.", errors=_shown(found)
        )

    async def unexpected(request: Request, error: Exception) -> Response:
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR)  # the server logs it

    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(DurableError, durable_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, refused)


def problem_of(error: DurableError, types: str | None = None) -> Problem:
    """The problem that an error is to a client."""
    kinds = (kind for kind in type(error).__mro__ if kind in _STATUS)
    status = _STATUS.get(next(kinds, DurableError), HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {"retry-after": str(RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    detail: str | None = str(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("a request failed: %s", error, exc_info=error)
        # A `Fail` says on purpose what it says; any other error was not written for those who read this.
        told = isinstance(error, ExecutionEnded) and error.error_type == "durable.errors.Fail"
        detail = cast("ExecutionEnded", error).message if told else None
    return Problem(
        status,
        type="about:blank" if types is None else f"{types}{error.code}",
        detail=detail,
        headers=headers,
        code=error.code,
        execution_id=getattr(error, "execution_id", None),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _shown(errors: Any) -> list[dict[str, object]]:
    """Where each is and what is wrong, without what was sent: that may be a secret, and may be large."""
    return [
        {"loc": [str(part) for part in error["loc"]], "type": error["type"], "msg": error["msg"]}
        for error in errors
    ]
