"""Webhooks: deliveries of other services, which send events and signals.

    delivery ── read, at most so much ── signature ── JSON ── payload ──▶ durable.send / durable.signal
                      413                   401        422      422

The id of the delivery becomes the id of the event or the key of the signal. So one that is delivered again, as services
do when an answer is lost, counts once; and it counts whenever the answer said that it was accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeVar, final

from fastapi import APIRouter, Request
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.responses import JSONResponse, Response

from durable import Durable, DurableError, Event, ExecutionClosed, Signal
from durable.clock import Clock, SystemClock
from durable_fastapi.lifespan import DurableDep
from durable_fastapi.problems import Problem, problem_of
from durable_fastapi.signatures import BadSignature, Signatures

log = logging.getLogger("durable.fastapi")

T = TypeVar("T")
Accept: TypeAlias = Callable[[Durable, str, Any], Awaitable[dict[str, object]]]

MAX_BODY: Final = 1024 * 1024


@final
class Webhooks:
    """Routes for the deliveries of one service, all signed with its secret.

        psp = Webhooks("psp", StandardWebhooks(os.environ["PSP_SECRET"]))
        psp.send("/payments", Paid)
        app.include_router(psp.router, prefix="/hooks")

    `source` is a name for the service: deliveries of two services never have one id. `max_body` is the most bytes that
    are read of one. The answer to a delivery is 200, with what became of it as `outcome`: `accepted`; `duplicate`, of
    an event that was there; `ignored`; or `closed`, for a signal to an execution that has ended, which no repeat would
    change. Anything else asks to be sent again, or says why that would be of no use.

    A signature says who sent what, not whereto. Who can listen to one delivery could show it to another of these
    routes, so let a route's meaning be in the payload, and have routes of one `Webhooks` take different payloads.
    """

    def __init__(
        self,
        source: str,
        signatures: Signatures,
        *,
        max_body: int = MAX_BODY,
        clock: Clock | None = None,
    ) -> None:
        self.source = source
        self.router = APIRouter(tags=[source])
        self._signatures = signatures
        self._max_body = max_body
        self._clock = clock or SystemClock()

    def send(self, path: str, event: Event[T], *, read: Callable[[Any], T | None] | None = None) -> None:
        """Each delivery to `path` is an event.

        The body is the event's payload, as JSON. Where it is something else, `read` makes the payload of the JSON, or
        gives None for a delivery that is to be ignored.
        """

        async def accept(durable: Durable, id: str, payload: Any) -> dict[str, object]:
            receipt = await durable.send(event, payload, id=id)
            return {"outcome": "duplicate" if receipt.duplicate else "accepted"}

        self._add(path, f"send {event.name}", event.payload, read, accept)

    def signal(
        self,
        path: str,
        signal: Signal[T],
        *,
        to: Callable[[T], str],
        read: Callable[[Any], T | None] | None = None,
    ) -> None:
        """Each delivery to `path` is a signal for the execution whose id `to` finds in the payload.

        The body and `read` are as with `send`.
        """

        async def accept(durable: Durable, id: str, payload: Any) -> dict[str, object]:
            try:
                await durable.signal(to(payload), signal, payload, key=id)
            except ExecutionClosed as error:
                return {"outcome": "closed", "status": error.status}
            return {"outcome": "accepted"}

        self._add(path, f"signal {signal.name}", signal.payload, read, accept)

    def _add(
        self,
        path: str,
        what: str,
        payload: Any,
        read: Callable[[Any], Any] | None,
        accept: Accept,
    ) -> None:
        schema: TypeAdapter[Any] = TypeAdapter(payload)

        async def deliver(request: Request, durable: DurableDep) -> Response:
            body = await _body(request, self._max_body)
            if body is None:
                return Problem(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail=f"At most {self._max_body} bytes are taken."
                )
            try:
                id = self._signatures.check(request.headers, body, self._clock.now_ms() / 1000)
            except BadSignature as error:
                log.info("a delivery to webhooks of %s was refused: %s", self.source, error)
                return Problem(HTTPStatus.UNAUTHORIZED, detail="The delivery is not signed as it must be.")
            try:
                given = _payload(schema, body, read)
            except ValidationError as error:
                found = error.errors(include_input=False, include_url=False, include_context=False)
                return Problem(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    detail=f"The body is not what is taken here, to {what}.",
                    errors=found,
                )
            if given is None and read is not None:
                return JSONResponse({"outcome": "ignored"})
            try:
                return JSONResponse(await accept(durable, f"{self.source}:{id}", given))
            except DurableError as error:
                return problem_of(error)

        self.router.add_api_route(
            path, deliver, methods=["POST"], name=f"{self.source}: {what}", response_model=None
        )


async def _body(request: Request, most: int) -> bytes | None:
    """The body as it was sent, which is what was signed; None when it is larger, of which no more is read."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


def _payload(schema: TypeAdapter[Any], body: bytes, read: Callable[[Any], Any] | None) -> Any:
    if read is None:
        return schema.validate_json(body)
    try:
        found = from_json(body)
    except ValueError:
        found = schema.validate_json(body)  # which says what is wrong with it
    return read(found)
