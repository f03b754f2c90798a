"""The OpenAPI document of the JSON API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter

from durable.dashboard.acts import Act
from durable.dashboard.guard import API_HEADER
from durable.models import (
    Execution,
    ExecutionDetail,
    ExecutionStatus,
    LimitInfo,
    QueueInfo,
    Schedule,
    WorkerRecord,
    WorkflowInfo,
)

_PLURALS: Final[Mapping[str, str]] = {
    "execution": "executions",
    "schedule": "schedules",
    "queue": "queues",
    "worker": "workers",
}
_RECORDS: Final = (Execution, ExecutionDetail, LimitInfo, QueueInfo, Schedule, WorkerRecord, WorkflowInfo)
_ERROR: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {name: {"type": "string"} for name in ("code", "message", "hint")},
        }
    },
}
_DONE: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["message"],
    "properties": {
        "message": {"type": "string"},
        "execution_id": {"type": ["string", "null"], "description": "Of what was started."},
    },
}
_HEALTH: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["is_well", "signs"],
    "properties": {
        "is_well": {"type": "boolean"},
        "signs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "is_well", "value", "advice"],
                "properties": {name: {"type": "string"} for name in ("name", "value", "advice")}
                | {"is_well": {"type": "boolean"}},
            },
        },
        "ready_age_s": {"type": "number", "description": "How long the first of what is ready has waited."},
        "timer_lag_s": {"type": "number", "description": "How late the first timer is."},
        "need_repair": {"type": "integer", "description": "Executions that need a person."},
        "mismatches": {
            "type": "integer",
            "description": "Those of the newest 100 that do not fit their code.",
        },
        "dead_letters": {"type": ["integer", "null"], "description": "What the broker has put aside."},
    },
}


def document(version: str, acts: Sequence[Act]) -> dict[str, object]:
    """The document, for this version and these acts."""
    adapters = [(record.__name__, "serialization", TypeAdapter[Any](record)) for record in _RECORDS]
    _, definitions = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas: dict[str, Any] = {**definitions["$defs"], "Error": _ERROR, "Done": _DONE}
    paths: dict[str, Any] = {}
    for path, what, schema, parameters in _reads():
        paths[path] = {"get": _operation(what, schema, parameters)}
    for act in acts:
        paths[f"/api/{_PLURALS[act.target]}/{{id}}/{act.verb}"] = {
            "post": _operation(
                act.about,
                _ref("Done"),
                [_ID, _HEADER],
                _body(_fields(act), [*act.required], needed=bool(act.required)),
            )
        }
    paths["/api/executions/bulk"] = {
        "post": _operation(
            "Do one thing to many executions.",
            _BULK_DONE,
            [_HEADER],
            _body(_bulk(acts), ["verb", "ids"], needed=True),
        )
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "durable", "version": version, "description": "The API behind the dashboard."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _reads() -> Iterator[tuple[str, str, Mapping[str, Any], list[Mapping[str, Any]]]]:
    page = [_query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}), _query("cursor", _TEXT)]
    status = {"type": "array", "items": {"enum": [str(each) for each in ExecutionStatus]}}
    filters = [
        _query("status", status),
        _query("workflow", _TEXT),
        _query("tag", {"type": "array", "items": {"type": "string", "pattern": ".+=.*"}}),
        _query("since", _TEXT | {"description": "An instant, or how long ago: 24h."}),
        _query("until", _TEXT | {"description": "An instant, or how long ago: 24h."}),
        _query("id_prefix", _TEXT),
        _query("parent_id", _TEXT),
    ]
    listed = _object(items=_list("Execution"), cursor={"type": ["string", "null"]})
    yield "/api/executions", "A page of executions, the newest first.", listed, [*filters, *page]
    yield "/api/executions/{id}", "All that is known of an execution.", _ref("ExecutionDetail"), [_ID]
    yield "/api/counts", "How many executions are in each status.", {"type": "object"}, []
    yield "/api/stuck", "Executions that need a person.", listed, page
    yield "/api/workflows", "What is registered.", _list("WorkflowInfo"), []
    yield "/api/schedules", "The schedules.", _list("Schedule"), []
    yield "/api/queues", "What waits in queues.", _list("QueueInfo"), []
    yield (
        "/api/limits",
        "Limits at which somebody holds a slot or waits.",
        _object(limits=_list("LimitInfo")),
        [],
    )
    yield "/api/workers", "The workers that are alive.", _list("WorkerRecord"), []
    yield "/api/health", "Whether all is well; without the figures while the store is away.", _HEALTH, []
    yield "/api/openapi.json", "This document.", {"type": "object"}, []


def _operation(
    summary: str,
    schema: Mapping[str, Any],
    parameters: Sequence[Mapping[str, Any]],
    body: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    answers: dict[str, Any] = {
        "200": _answer("Done.", schema),
        "default": _answer("An error.", _ref("Error")),
    }
    operation: dict[str, Any] = {"summary": summary, "parameters": list(parameters), "responses": answers}
    return operation if body is None else operation | {"requestBody": body}


def _answer(description: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _body(properties: Mapping[str, Any], required: Sequence[str], *, needed: bool) -> Mapping[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = sorted(required)
    return {"required": needed, "content": {"application/json": {"schema": schema}}}


def _fields(act: Act) -> Mapping[str, Any]:
    fields: dict[str, Any] = {
        name: {"type": "string"} if kind is str else {} for name, kind in act.fields.items()
    }
    return fields | ({"confirm": _CONFIRM} if act.hurts else {})


def _bulk(acts: Sequence[Act]) -> Mapping[str, Any]:
    return {
        "verb": {"enum": [act.verb for act in acts if act.bulk]},
        "ids": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1000},
        "reason": {"type": "string"},
        "confirm": _CONFIRM,
    }


def _query(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _ref(name: str) -> Mapping[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> Mapping[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _object(**properties: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "object", "properties": properties}


_TEXT: Final[dict[str, Any]] = {"type": "string"}
_CONFIRM: Final = {"type": "string", "description": "The name that confirms it, in the environment prod."}
_ID: Final = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
_HEADER: Final = {"name": API_HEADER, "in": "header", "required": True, "schema": _TEXT}
_BULK_DONE: Final = _object(done={"type": "integer"}, refused={"type": "object"})
