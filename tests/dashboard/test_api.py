"""The JSON API, its document, and what it makes of nonsense."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from durable import Durable
from durable.dashboard import dashboard
from durable.dashboard.acts import ACTS
from tests.dashboard.conftest import Visit, Visitor
from tests.dashboard.shop import Order, broken, fulfil, pinged, quick
from tests.support import ends, reaches


async def test_executions_are_listed_by_filter_and_page(durable: Durable, visitor: Visitor) -> None:
    handles = [await durable.start(quick, str(number), tags={"tenant": "acme"}) for number in range(5)]
    await durable.start(pinged)
    for handle in handles:
        await ends(handle)
    first = await visitor.json("/executions", params={"workflow": "quick", "tag": "tenant=acme", "limit": 3})
    rest = await visitor.json(
        "/executions", params={"workflow": "quick", "limit": 3, "cursor": first["cursor"]}
    )
    ids = [item["id"] for item in first["items"] + rest["items"]]
    assert sorted(ids) == sorted(handle.id for handle in handles)
    assert rest["cursor"] is None
    assert first["items"][0]["status"] == "completed"
    assert (await visitor.json("/counts"))["completed"] == 5


async def test_an_execution_is_told_with_its_steps_and_why_it_waits(
    durable: Durable, visitor: Visitor
) -> None:
    handle = await durable.start(fulfil, Order("7", 1))
    await reaches(handle, "waiting")
    detail = await visitor.json(f"/executions/{handle.id}")
    assert [step["id"] for step in detail["steps"]] == ["reserve", "charge", "approved"]
    assert "signal 'approved'" in detail["explanation"]
    child = f"{handle.id}/notify"
    await visitor.call(
        f"/executions/{handle.id}/signal", {"name": "approved", "payload": {"by": "a", "approved": True}}
    )
    await ends(handle)
    for spelled in (child, child.replace("/", "%2F")):
        assert (await visitor.json(f"/executions/{spelled}"))["execution"]["id"] == child


async def test_acts_are_done_and_say_what_was_wrong(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(fulfil, Order("7", 1))
    await reaches(handle, "waiting")
    bad = await visitor.call(
        f"/executions/{handle.id}/signal", {"name": "approved", "payload": {"by": 1}}, status=422
    )
    assert bad["error"]["code"] == "invalid_input"
    assert "approved" in bad["error"]["message"]
    assert (await visitor.call(f"/executions/{handle.id}/retry", {}, status=409))["error"][
        "code"
    ] == "wrong_status"
    assert (await visitor.call("/executions/nope/cancel", {}, status=404))["error"]["code"]
    assert (await visitor.call(f"/executions/{handle.id}/explode", {}, status=404))["error"][
        "code"
    ] == "not_found"
    await visitor.call(f"/executions/{handle.id}/cancel", {"reason": 7}, status=422)
    await visitor.call(f"/executions/{handle.id}/cancel", {"surprise": 7}, status=422)
    await visitor.call(f"/executions/{handle.id}/force-fail", {}, status=422)
    await visitor.call(f"/executions/{handle.id}/cancel", {"reason": "over"})
    execution = await ends(handle)
    assert execution.status == "cancelled"
    assert execution.error
    assert "over" in execution.error.message


async def test_many_are_acted_on_at_once(durable: Durable, visitor: Visitor) -> None:
    handles = [await durable.start(pinged) for _ in range(3)]
    done = await durable.start(broken, "x")
    await ends(done)
    for handle in handles:
        await reaches(handle, "waiting")
    ids = [handle.id for handle in handles]
    answer = await visitor.call("/executions/bulk", {"verb": "cancel", "ids": [*ids, "nope"]})
    assert answer["done"] == 3
    assert list(answer["refused"]) == ["nope"]
    for body in ({}, {"verb": "cancel"}, {"verb": "signal", "ids": ids}, {"verb": "cancel", "ids": [1]}):
        await visitor.call("/executions/bulk", body, status=422)
    await visitor.call("/executions/bulk", {"verb": "cancel", "ids": ["x"] * 1001}, status=422)


async def test_schedules_queues_and_workers_are_read_and_acted_on(durable: Durable, visitor: Visitor) -> None:
    [schedule] = await visitor.json("/schedules")
    await visitor.call(f"/schedules/{schedule['id']}/pause", {})
    assert (await visitor.json("/schedules"))[0]["paused"]
    started = await visitor.call(f"/schedules/{schedule['id']}/trigger", {})
    assert (await visitor.json(f"/executions/{started['execution_id']}"))["execution"][
        "workflow"
    ] == "nightly"
    await visitor.call("/queues/default/pause", {})
    assert (await visitor.json("/queues"))[0]["paused"]
    [worker] = await visitor.json("/workers")
    assert worker["slots"] == 100
    await visitor.call(f"/workers/{worker['id']}/drain", {})
    assert (await visitor.json("/limits"))["limits"] == []
    assert (await visitor.json("/health"))["signs"]
    assert len(await visitor.json("/workflows")) == 9
    assert (await visitor.json("/stuck"))["items"] == []


async def test_the_document_describes_every_route_and_every_record(
    durable: Durable, visitor: Visitor
) -> None:
    document = await visitor.json("/openapi.json")
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    wanted = {("POST", f"/api/{act.target}s/{{id}}/{act.verb}") for act in ACTS.values()}
    wanted |= {
        ("GET", f"/api/{name}")
        for name in [
            "executions",
            "counts",
            "stuck",
            "workflows",
            "schedules",
            "queues",
            "limits",
            "workers",
            "health",
            "openapi.json",
        ]
    }
    wanted |= {("GET", "/api/executions/{id}"), ("POST", "/api/executions/bulk")}
    assert described == wanted
    text = json.dumps(document)
    for name in re.findall(r'"#/components/schemas/([^"]*)"', text):
        assert name in document["components"]["schemas"]
    handle = await durable.start(fulfil, Order("7", 1))
    await reaches(handle, "waiting")
    answer = await visitor.json(f"/executions/{handle.id}")
    _conforms(answer, document["paths"]["/api/executions/{id}"]["get"], document)
    _conforms(await visitor.json("/schedules"), document["paths"]["/api/schedules"]["get"], document)
    _conforms(await visitor.json("/workers"), document["paths"]["/api/workers"]["get"], document)


def _conforms(value: Any, operation: Any, document: Any) -> None:
    _check(value, operation["responses"]["200"]["content"]["application/json"]["schema"], document)


def _check(value: Any, schema: Any, document: Any) -> None:
    """Enough of JSON Schema to notice that a record has changed."""
    if reference := schema.get("$ref"):
        _check(value, document["components"]["schemas"][reference.rpartition("/")[2]], document)
    elif options := schema.get("anyOf"):
        assert any(_fits(value, each, document) for each in options), (value, schema)
    elif schema.get("type") == "object":
        assert isinstance(value, dict), (value, schema)
        assert set(schema.get("required", ())) <= value.keys()
        for name, each in schema.get("properties", {}).items():
            if name in value:
                _check(value[name], each, document)
    elif schema.get("type") == "array":
        assert isinstance(value, list)
        for each in value:
            _check(each, schema["items"], document)
    elif kind := schema.get("type"):
        kinds = {"string": str, "integer": int, "boolean": bool, "null": type(None), "number": (int, float)}
        assert isinstance(value, kinds[kind]), (value, schema)
    if known := schema.get("enum"):
        assert value in known


def _fits(value: Any, schema: Any, document: Any) -> bool:
    try:
        _check(value, schema, document)
    except AssertionError:
        return False
    return True


# ---- nonsense

_TEXT = st.text(max_size=40) | st.sampled_from(
    [
        "../..",
        "%00",
        "\x00",
        "a\r\nb",
        "\u202ex",
        "__proto__",
        "9" * 400,
        "1e999",
        "-1",
        "NaN",
        "{}",
        "[",
        "%ff",
        "\ud800",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    [
        "status",
        "workflow",
        "tag",
        "since",
        "until",
        "id_prefix",
        "parent_id",
        "limit",
        "cursor",
        "q",
        "tab",
        "axis",
        "name",
        "version",
        "verb",
        "id",
    ]
)
_VALUES = _TEXT | st.sampled_from(
    ["completed", "5", "1h", "a=b", "waterfall", "cancel", "quick", "2026-01-01"]
)
_EXAMPLES = 3_000 if os.environ.get("DURABLE_TEST_LONG") == "1" else 40
_FIELDS = [
    "reason",
    "from_step",
    "input",
    "step_id",
    "value",
    "name",
    "payload",
    "key",
    "confirm",
    "ids",
    "verb",
    "csrf",
    "back",
    "target",
    "pick",
    "surprise",
]
_READS = [
    "/", "/waiting", "/workflows", "/schedules", "/queues", "/workers", "/health", "/bulk", "/runs/", "/login",
    "/api/executions", "/api/executions/", "/api/stuck", "/api/counts", "/api/openapi.json", "/static/", "/live/runs/",
]  # fmt: skip


def _encoded(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


@pytest.fixture
async def victim(durable: Durable, visit: Visit) -> Visitor:
    await reaches(await durable.start(pinged, key="victim"), "waiting")
    return visit(dashboard(durable))


@settings(max_examples=_EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(_READS),
    rest=_TEXT,
    query=st.lists(st.tuples(_NAMES, _VALUES), max_size=4),
    with_rest=st.booleans(),
)
async def test_no_address_breaks_it(
    victim: Visitor, path: str, rest: str, query: list[tuple[str, str]], with_rest: bool
) -> None:
    address = path + (_encoded(rest) if with_rest or path.startswith("/live") else "")
    address += "?" + "&".join(f"{name}={_encoded(value)}" for name, value in query)
    answer = await victim.client.get(address, follow_redirects=False)
    assert answer.status_code < 500, (address, answer.text)


@settings(max_examples=_EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    act=st.sampled_from(sorted(ACTS)),
    id=st.sampled_from(["victim", "nope"]) | _TEXT,
    body=st.dictionaries(st.sampled_from(_FIELDS), _JSON | _VALUES, max_size=4) | _JSON,
    raw=st.none() | st.binary(max_size=30),
)
async def test_no_body_breaks_the_api(
    victim: Visitor, act: tuple[str, str], id: str, body: Any, raw: bytes | None
) -> None:
    target, verb = act
    data = raw if raw is not None else json.dumps(body, allow_nan=True).encode("utf-8", "surrogatepass")
    headers = {"x-durable-request": "1", "content-type": "application/json"}
    for path in (f"/api/{target}s/{_encoded(id) or 'x'}/{verb}", "/api/executions/bulk"):
        answer = await victim.client.post(path, content=data, headers=headers)
        assert answer.status_code < 500, (path, data, answer.text)
        assert answer.headers["content-type"] == "application/json"


@settings(max_examples=_EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    act=st.sampled_from(sorted(ACTS)) | st.just(("execution", "nonsense")),
    fields=st.dictionaries(st.sampled_from([*_FIELDS, "payload.by"]), _VALUES, max_size=5),
    raw=st.none() | st.binary(max_size=30),
)
async def test_no_form_breaks_it(
    victim: Visitor, act: tuple[str, str], fields: dict[str, str], raw: bytes | None
) -> None:
    if "durable_csrf" not in victim.client.cookies:
        await victim.client.get("/")
    pairs = {"target": "victim", **fields, "csrf": victim.client.cookies["durable_csrf"]}
    text = "&".join(f"{name}={_encoded(value)}" for name, value in pairs.items()).encode()
    data = text if raw is None else text + b"&" + raw
    headers = {"content-type": "application/x-www-form-urlencoded"}
    for path in (f"/act/{act[0]}/{act[1]}", "/bulk"):
        answer = await victim.client.post(path, content=data, headers=headers, follow_redirects=False)
        assert answer.status_code < 500, (path, data, answer.text)
