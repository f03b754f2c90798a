"""The JSON API: the same reads and acts as the pages, for programs. `openapi` describes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from datetime import datetime
from typing import Final, cast

from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from durable import __version__
from durable.dashboard.acts import ACTS, check_confirmed, find_act, perform
from durable.dashboard.filters import instant
from durable.dashboard.openapi import document
from durable.dashboard.pages.health import look
from durable.dashboard.site import Site
from durable.dashboard.values import as_json
from durable.dashboard.writes import MOST_AT_ONCE, do_to_many
from durable.errors import InvalidInput

Endpoint = Callable[[Request], Awaitable[Response]]

_TARGETS: Final = {"executions": "execution", "schedules": "schedule", "queues": "queue", "workers": "worker"}


def routes(site: Site) -> list[BaseRoute]:
    """The routes below `/api`."""
    reads: dict[str, Callable[[Site, Request], Awaitable[object]]] = {
        "/executions": _executions,
        "/executions/{id:path}": _execution,
        "/counts": _counts,
        "/stuck": _stuck,
        "/workflows": _workflows,
        "/schedules": _schedules,
        "/queues": _queues,
        "/limits": _limits,
        "/workers": _workers,
        "/health": _health,
        "/openapi.json": _openapi,
    }
    found: list[BaseRoute] = [Route("/executions/bulk", _bulk(site), methods=["POST"])]
    found += [
        Route(f"/{plural}/{{id:path}}/{{verb}}", _act(site, target), methods=["POST"])
        for plural, target in _TARGETS.items()
    ]
    found += [Route(path, _read(site, read), methods=["GET"]) for path, read in reads.items()]
    return found


def _read(site: Site, read: Callable[[Site, Request], Awaitable[object]]) -> Endpoint:
    async def answer(request: Request) -> Response:
        return _json(await read(site, request))

    return answer


def _act(site: Site, target: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        chosen = find_act(target, request.path_params["verb"])
        if chosen is None:
            raise HTTPException(404, "there is no such act")
        given = await _body(request)
        done = await perform(site, chosen, request.path_params["id"], given, request.scope["durable.actor"])
        return _json({"message": done.message, "execution_id": done.execution_id})

    return answer


def _bulk(site: Site) -> Endpoint:
    async def answer(request: Request) -> Response:
        body = await _body(request)
        verb, ids = body.get("verb"), body.get("ids")
        chosen = ACTS.get(("execution", verb)) if isinstance(verb, str) else None
        if chosen is None or not chosen.bulk:
            raise InvalidInput(
                "verb must be one of " + ", ".join(act.verb for act in ACTS.values() if act.bulk)
            )
        listed = cast("list[object]", ids) if isinstance(ids, list) else []
        texts = [id for id in listed if isinstance(id, str)]
        if not texts or len(texts) != len(listed) or len(texts) > MOST_AT_ONCE:
            raise InvalidInput(
                f"ids must be 1 to {MOST_AT_ONCE:,} ids", "list them first, to see what they are"
            )
        reason = body.get("reason")
        given = {"reason": reason} if isinstance(reason, str) and "reason" in chosen.fields else {}
        if missing := chosen.required - given.keys():
            raise InvalidInput(f"{chosen.verb} needs {', '.join(missing)}")
        if site.confirms and chosen.hurts:
            check_confirmed(site.environment, body.get("confirm"))
        refused = await do_to_many(site, chosen, texts, given, request.scope["durable.actor"])
        return _json(
            {"done": len(set(texts)) - len(refused), "refused": {id: str(why) for id, why in refused.items()}}
        )

    return answer


async def _executions(site: Site, request: Request) -> object:
    query = request.query_params
    tags: dict[str, str] = {}
    for text in query.getlist("tag"):
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInput("tag must be name=value")
        tags[name] = value
    return await site.executions(
        status=[each for each in query.getlist("status") if each] or None,
        workflow=query.get("workflow") or None,
        tags=tags or None,
        since=_instant(query.get("since"), "since"),
        until=_instant(query.get("until"), "until"),
        id_prefix=query.get("id_prefix") or None,
        parent_id=query.get("parent_id") or None,
        limit=_limit(query.get("limit")),
        cursor=query.get("cursor") or None,
    )


async def _execution(site: Site, request: Request) -> object:
    id: str = request.path_params["id"]
    detail = await site.detail(id)
    why = site.veil.text("text", await site.durable.operator.explain(id))
    return {**{field.name: getattr(detail, field.name) for field in fields(detail)}, "explanation": why}


async def _counts(site: Site, request: Request) -> object:
    return await site.durable.operator.counts()


async def _stuck(site: Site, request: Request) -> object:
    query = request.query_params
    page = await site.durable.operator.list_stuck(
        limit=_limit(query.get("limit")), cursor=query.get("cursor") or None
    )
    return {"items": [site.veil.execution(each) for each in page.items], "cursor": page.cursor}


async def _workflows(site: Site, request: Request) -> object:
    return site.durable.workflows()


async def _schedules(site: Site, request: Request) -> object:
    return [site.veil.schedule(each) for each in await site.durable.list_schedules()]


async def _queues(site: Site, request: Request) -> object:
    return await site.durable.operator.queues()


async def _limits(site: Site, request: Request) -> object:
    operator = site.durable.operator
    return {"limits": await operator.held_limits(), "set": await operator.limits()}


async def _workers(site: Site, request: Request) -> object:
    return await site.durable.operator.workers()


async def _health(site: Site, request: Request) -> object:
    signs, found = await look(site)
    answer: dict[str, object] = {"is_well": all(sign.is_well for sign in signs), "signs": signs}
    if found is not None:
        answer |= {
            "ready_age_s": found.ready_age.total_seconds(),
            "timer_lag_s": found.timer_lag.total_seconds(),
            "need_repair": found.need_repair,
            "mismatches": found.mismatches,
            "dead_letters": found.dead_letters,
        }
    return answer


async def _openapi(site: Site, request: Request) -> object:
    return document(__version__, list(ACTS.values()))


async def _body(request: Request) -> dict[str, object]:
    """The object that was sent; nothing is an empty one."""
    data = await request.body()
    if not data:
        return {}
    try:
        body: object = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidInput("the body must be an object")
    return cast("dict[str, object]", body)


def _instant(text: str | None, what: str) -> datetime | None:
    return instant(text, what) if text else None


def _limit(text: str | None) -> int:
    if text is None:
        return 50
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise InvalidInput("limit must be a whole number")
    return int(text)


def _json(value: object) -> Response:
    return Response(as_json(value), media_type="application/json")
