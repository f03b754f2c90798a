"""What forms send: logging in, acts on one thing, and acts on many after a look at which."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote

from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from durable.dashboard.access import SESSION, is_csrf
from durable.dashboard.acts import ACTS, Act, Fields, check_confirmed, find_act, perform, read_json
from durable.dashboard.filters import Filter
from durable.dashboard.forms import fields_of, value_of
from durable.dashboard.guard import set_cookie
from durable.dashboard.links import base_of, within
from durable.dashboard.signals import signal_named
from durable.dashboard.site import NOTICE, PROBLEM, Site
from durable.errors import DurableError, InvalidInput
from durable.models import Execution

MOST_AT_ONCE: Final = 1_000
_AT_ONE_TIME: Final = 16
_MOST_FIELDS: Final = 2_000

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
Form: TypeAlias = ImmutableMultiDict[str, str]


def login(site: Site) -> Endpoint:
    """The form for the token, and what takes it."""

    async def answer(request: Request) -> Response:
        if not site.access.has_login:
            return RedirectResponse(f"{base_of(request)}/", 303)
        after = within(request.query_params.get("next", "/"))
        if request.method == "GET":
            return HTMLResponse(site.plain_page("login.html", request, next=after, failed=False))
        form = await _form(request)
        if not site.access.is_token(_text(form, "token")):
            return HTMLResponse(site.plain_page("login.html", request, next=after, failed=True), 401)
        response = RedirectResponse(base_of(request) + within(_text(form, "next") or after), 303)
        set_cookie(
            response, request, SESSION, site.access.new_session(_text(form, "name")), ends_in=12 * 3600
        )
        return response

    return answer


def logout(site: Site) -> Endpoint:
    async def answer(request: Request) -> Response:
        await _form(request)
        response = RedirectResponse(f"{base_of(request)}/login", 303)
        set_cookie(response, request, SESSION, "", ends_in=0)
        return response

    return answer


def act(site: Site) -> Endpoint:
    """Do one thing, and show the page on which it was asked for, or the new execution, with what came of it."""

    async def answer(request: Request) -> Response:
        chosen = find_act(request.path_params["target"], request.path_params["verb"])
        if chosen is None:
            raise HTTPException(404, "there is no such act")
        form = await _form(request)
        id, back = _text(form, "target"), within(_text(form, "back"))
        try:
            fields = await _fields(site, chosen, id, form)
            done = await perform(site, chosen, id, fields, request.scope["durable.actor"])
        except DurableError as error:
            return _back(request, back, problem=f"{error} ({error.hint})")
        return _back(request, done.path or back, notice=done.message)

    return answer


def preview(site: Site) -> Endpoint:
    """Show what an act on many would be done to."""

    async def answer(request: Request) -> Response:
        chosen = _bulk_act(request.query_params.get("verb", ""))
        wanted = Filter.of(request.query_params)
        ids = request.query_params.getlist("pick")[:MOST_AT_ONCE]
        more = False
        if ids:
            found: Sequence[Execution] = [detail.execution for detail in await site.details(ids)]
        else:
            page = await site.executions(**wanted.arguments(), limit=MOST_AT_ONCE)
            found, more = page.items, page.cursor is not None
        fit = [execution for execution in found if execution.status in chosen.applies_to]
        return HTMLResponse(
            site.plain_page(
                "bulk.html",
                request,
                act=chosen,
                wanted=wanted,
                fit=fit,
                unfit=len(found) - len(fit),
                more=more,
                most=MOST_AT_ONCE,
                back=wanted.address(),
            )
        )

    return answer


def bulk(site: Site) -> Endpoint:
    """Do it to those that were shown, and to no others."""

    async def answer(request: Request) -> Response:
        form = await _form(request)
        chosen = _bulk_act(_text(form, "verb"))
        ids = form.getlist("ids")[:MOST_AT_ONCE]
        back = within(_text(form, "back"))
        try:
            if site.confirms and chosen.hurts:
                check_confirmed(site.environment, _text(form, "confirm"))
            given = (
                {"reason": reason} if "reason" in chosen.fields and (reason := _text(form, "reason")) else {}
            )
            if missing := chosen.required - given.keys():
                raise InvalidInput(f"{chosen.verb} needs {', '.join(missing)}")
        except InvalidInput as error:
            return _back(request, back, problem=f"{error} ({error.hint})")
        refused = await do_to_many(site, chosen, ids, given, request.scope["durable.actor"])
        done = len(ids) - len(refused)
        said = f"{chosen.label}: done for {done} of {len(ids)}."
        if refused:
            first, why = next(iter(refused.items()))
            return _back(request, back, notice=said, problem=f"{first}: {why}")
        return _back(request, back, notice=said)

    return answer


async def do_to_many(
    site: Site, chosen: Act, ids: Sequence[str], fields: Fields, actor: str
) -> Mapping[str, DurableError]:
    """Do it to each; those for which it could not be done, with why."""
    refused: dict[str, DurableError] = {}
    few = asyncio.Semaphore(_AT_ONE_TIME)

    async def one(id: str) -> None:
        async with few:
            try:
                await chosen.run(site, id, fields, actor)
            except DurableError as error:
                refused[id] = error

    await asyncio.gather(*map(one, dict.fromkeys(ids)))
    return refused


def _bulk_act(verb: str) -> Act:
    chosen = ACTS.get(("execution", verb))
    if chosen is None or not chosen.bulk:
        raise HTTPException(404, "there is no such act")
    return chosen


async def _fields(site: Site, chosen: Act, id: str, form: Form) -> dict[str, object]:
    texts = dict(form.multi_items())
    fields: dict[str, object] = {}
    for name, kind in chosen.fields.items():
        if chosen.verb == "signal" and name == "payload":
            workflow = site.workflow_of(await site.durable.status(id))
            signal = signal_named(workflow, texts.get("name", ""))
            schema = None if signal is None else signal.schema.json_schema()
            if fields_of(schema):
                fields[name] = value_of(schema, texts)
        elif name in texts and (kind is str or texts[name].strip() or name in chosen.required):
            fields[name] = texts[name] if kind is str else read_json(texts[name], name)
    if "confirm" in texts:
        fields["confirm"] = texts["confirm"]
    return fields


async def _form(request: Request) -> Form:
    """What was sent, if a page of ours has sent it."""
    if (
        request.headers.get("content-type", "").partition(";")[0].strip()
        != "application/x-www-form-urlencoded"
    ):
        raise HTTPException(415, "a form comes as application/x-www-form-urlencoded")
    try:
        text = (await request.body()).decode()
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None
    form = ImmutableMultiDict[str, str](pairs)
    if not is_csrf(request, form.get("csrf")):
        raise HTTPException(403, "the form is not of this browser: load the page again")
    return form


def _text(form: Form, name: str) -> str:
    return form.get(name, "")


def _back(request: Request, path: str, *, notice: str = "", problem: str = "") -> Response:
    response = RedirectResponse(base_of(request) + path, 303)
    for name, text in ((NOTICE, notice), (PROBLEM, problem)):
        if text:
            set_cookie(response, request, name, quote(text[:1000]), ends_in=30)
    return response
