"""An application with durable workflows: its life, its errors, and what is mounted behind its sign-in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from durable import (
    CompensationFailed,
    ConfigurationError,
    Context,
    Durable,
    DurableError,
    ExecutionCancelled,
    ExecutionClosed,
    ExecutionFailed,
    ExecutionNotFound,
    Fail,
    InvalidInput,
    KeyConflict,
    LimitReached,
    OutcomeUnknown,
    PayloadTooLarge,
    ScheduleNotFound,
    StoreFull,
    StoreUnavailable,
    WaitTimeout,
    workflow,
)
from durable_fastapi import DurableDep, Problem, add_problems, lifespan, mount_behind, signed_in


class Order(BaseModel):
    id: str
    cents: int


@workflow(retry=1)
async def sell(ctx: Context, order: Order) -> str:
    if order.cents < 0:
        raise Fail("nothing costs less than nothing", code="bad_price")
    if order.cents == 0:
        raise RuntimeError("the password is swordfish")
    return f"sold {order.id}"


def shop(durable: Durable | None = None, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan(durable or Durable([sell], store="memory://"), **options))
    add_problems(app)

    @app.post("/orders", status_code=202)
    async def order(order: Order, durable: DurableDep) -> str:
        handle = await durable.start(sell, order, key=order.id)
        return await handle.result("10s")

    @app.get("/executions/{id}")
    async def status(id: str, durable: DurableDep) -> str:
        return (await durable.status(id)).status

    return app


@contextmanager
def served(app: FastAPI) -> Generator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status_code
    return found


# ---- life


def test_a_route_starts_an_execution_and_gives_its_result() -> None:
    with served(shop()) as client:
        answer = client.post("/orders", json={"id": "7", "cents": 100})
        assert (answer.status_code, answer.json()) == (202, "sold 7")


def test_what_ones_own_lifespan_opens_is_open_for_as_long_as_workflows_run() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
        events.append("opened")
        yield {"greeting": "hello"}
        events.append("closed")

    @asynccontextmanager
    async def deps() -> AsyncGenerator[None]:
        events.append("workflows begin")
        yield
        events.append("workflows end")

    app = shop(Durable([sell], store="memory://", deps=deps), within=own)

    @app.get("/greeting")
    async def greeting(request: Request) -> str:
        return request.state.greeting

    with served(app) as client:
        assert client.get("/greeting").json() == "hello"
        assert client.post("/orders", json={"id": "7", "cents": 100}).json() == "sold 7"
    assert events == ["opened", "workflows begin", "workflows end", "closed"]


def test_a_durable_that_cannot_be_entered_keeps_the_application_from_starting(tmp_path: Path) -> None:
    (tmp_path / "shop.db").write_text("this is no database " * 1000)
    with (
        pytest.raises(StoreUnavailable),
        served(shop(Durable([sell], store=f"sqlite:///{tmp_path}/shop.db"))),
    ):
        pass


def test_an_application_without_the_lifespan_says_so(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    add_problems(app)

    @app.get("/")
    async def index(durable: DurableDep) -> None: ...

    with served(app) as client:
        assert problem(client.get("/"))["code"] == ConfigurationError.code
    assert "FastAPI(lifespan=lifespan(durable))" in caplog.text


# ---- problems


def test_a_refused_call_is_a_problem_with_its_code_and_its_reason() -> None:
    with served(shop()) as client:
        assert client.post("/orders", json={"id": "7", "cents": 100}).status_code == 202
        conflict = problem(client.post("/orders", json={"id": "7", "cents": 200}))
        assert (conflict["status"], conflict["code"], conflict["title"]) == (409, "key_conflict", "Conflict")
        assert conflict["type"] == "about:blank"
        assert conflict["execution_id"] in conflict["detail"]
        missing = problem(client.get("/executions/nobody"))
        assert (missing["status"], missing["code"]) == (404, "execution_not_found")
        hostile = problem(client.get("/executions/a b"))
        assert (hostile["status"], hostile["code"]) == (422, "invalid_input")


def test_an_execution_that_failed_tells_what_it_meant_to_tell_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served(shop()) as client:
        meant = problem(client.post("/orders", json={"id": "1", "cents": -1}))
        assert (meant["status"], meant["code"]) == (500, "bad_price")
        assert meant["detail"] == "nothing costs less than nothing"
        caplog.clear()
        bug = client.post("/orders", json={"id": "2", "cents": 0})
        assert problem(bug)["code"] == "failed"
        assert "swordfish" not in bug.text
        assert "swordfish" in caplog.text


def test_a_request_that_is_not_valid_is_a_problem_that_repeats_nothing_of_it() -> None:
    with served(shop()) as client:
        answer = client.post("/orders", json={"id": "7", "cents": "swordfish"})
        refused = problem(answer)
        assert refused["status"] == 422
        assert [(error["loc"], error["type"]) for error in refused["errors"]] == [
            (["body", "cents"], "int_parsing")
        ]
        assert "swordfish" not in answer.text


def test_http_exceptions_are_problems_with_their_headers() -> None:
    app = shop()

    @app.get("/secret")
    async def secret() -> None:
        raise HTTPException(401, "who are you?", {"www-authenticate": "Basic"})

    @app.get("/same")
    async def same() -> None:
        raise HTTPException(304)

    with served(app) as client:
        answer = client.get("/secret")
        assert problem(answer)["detail"] == "who are you?"
        assert answer.headers["www-authenticate"] == "Basic"
        assert problem(client.get("/nowhere")) == {"type": "about:blank", "title": "Not Found", "status": 404}
        assert client.get("/same").content == b""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("x"), 422),
        (PayloadTooLarge("x", 2, 1), 413),
        (ExecutionNotFound("x"), 404),
        (ScheduleNotFound("x"), 404),
        (KeyConflict("sell", "k", "x"), 409),
        (ExecutionClosed("x", "completed"), 409),
        (ExecutionCancelled("x", "sell", 1, "", "enough"), 409),
        (WaitTimeout("x", 1), 504),
        (StoreUnavailable("redis is away"), 503),
        (StoreFull("x"), 503),
        (OutcomeUnknown("x"), 503),
        (LimitReached("x", "checkpoints", 1), 500),
        (CompensationFailed("x", "sell", 1, "", ""), 500),
        (ExecutionFailed("x", "sell", 1, "KeyError", "'secret'"), 500),
        (ConfigurationError("x"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, DurableError) else "",
)
def test_each_error_has_its_status(error: DurableError, status: int) -> None:
    app = FastAPI()
    add_problems(app, types="https://shop.example/problems#")

    @app.get("/")
    async def index() -> None:
        raise error

    with served(app) as client:
        answer = client.get("/")
        found = problem(answer)
        assert found["status"] == status
        assert found["type"] == f"https://shop.example/problems#{error.code}"
        assert ("detail" in found) == (status < 500)
        assert answer.headers.get("retry-after") == ("5" if status == 503 else None)


def test_a_problem_has_the_members_of_the_standard_and_ones_own() -> None:
    body = Problem(400, detail="no", title="Bad", code="c", nothing=None).body
    assert body == b'{"code":"c","type":"about:blank","title":"Bad","status":400,"detail":"no"}'


def test_what_nobody_expected_is_a_problem_too_and_says_nothing_of_itself() -> None:
    app = shop()

    @app.get("/bug")
    async def bug() -> None:
        raise KeyError("swordfish")

    with served(app) as client:
        answer = client.get("/bug")
        assert problem(answer)["status"] == 500
        assert "swordfish" not in answer.text


# ---- what is mounted


def inner() -> Starlette:
    async def show(request: Request) -> JSONResponse:
        body = (await request.body()).decode()
        url = str(request.url_for("show", rest="there"))
        return JSONResponse([request.method, request.path_params["rest"], signed_in(request), body, url])

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse((f"{n}\n" for n in range(3)), media_type="text/plain")

    methods = ["GET", "POST"]
    return Starlette(
        routes=[Route("/stream", stream), Route("/{rest:path}", show, methods=methods, name="show")]
    )


def user(authorization: Annotated[str | None, Header()] = None) -> dict[str, str]:
    if authorization != "Bearer ada's":
        raise HTTPException(401, "sign in first")
    return {"name": "ada"}


def behind(app: FastAPI) -> FastAPI:
    by_name: Callable[[Any], str] = lambda user: user["name"]  # noqa: E731
    mount_behind(app, "/inner", inner(), user=user, name=by_name)
    return app


@pytest.mark.parametrize("path", ["/inner/", "/inner/page", "/inner/stream", "/inner/../inner/page"])
def test_nobody_reaches_what_is_mounted_who_is_not_signed_in(path: str) -> None:
    with served(behind(shop())) as client:
        assert problem(client.get(path))["detail"] == "sign in first"
        assert client.post(path, headers={"authorization": "Bearer eve's"}).status_code == 401


def test_who_is_signed_in_reaches_it_and_is_known_there() -> None:
    with served(behind(shop())) as client:
        client.headers["authorization"] = "Bearer ada's"
        here = "http://testserver/inner"
        assert client.get("/inner/a/b").json() == ["GET", "a/b", "ada", "", f"{here}/there"]
        assert client.post("/inner/", content="x").json() == ["POST", "", "ada", "x", f"{here}/there"]
        assert client.get("/inner").json() == ["GET", "", "ada", "", f"{here}/there"]
        assert client.get("/inner/stream").text == "0\n1\n2\n"


def test_whoever_comes_another_way_is_nobody() -> None:
    app = FastAPI()
    app.mount("/inner", inner())
    with served(app) as client:
        assert client.get("/inner/a").json()[2] is None
