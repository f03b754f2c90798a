"""What every page has at hand: the application that it shows, its settings, and its templates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, final
from urllib.parse import unquote

from starlette.datastructures import QueryParams
from starlette.requests import Request

from durable import __version__
from durable.app import Durable
from durable.dashboard.access import Access
from durable.dashboard.links import base_of
from durable.dashboard.samples import Samples
from durable.dashboard.templating import environment
from durable.dashboard.veil import Veil
from durable.errors import UnknownWorkflow
from durable.models import Execution, ExecutionDetail, Page as PageOf
from durable.workflow import AnyWorkflow

CSRF_PLACE: Final = "csrf-token-of-whoever-reads-this"
"""Stands in what is rendered once for many, until it is sent to one."""
NOTICE: Final = "durable_notice"
PROBLEM: Final = "durable_problem"
"""Cookies that carry what came of a form to the page that is shown then."""
NAVIGATION: Final = (
    ("runs", "/", "Runs"),
    ("waiting", "/waiting", "Waiting"),
    ("workflows", "/workflows", "Workflows"),
    ("schedules", "/schedules", "Schedules"),
    ("queues", "/queues", "Queues"),
    ("workers", "/workers", "Workers"),
    ("health", "/health", "Health"),
)


@final
@dataclass(frozen=True)
class Ask:
    """What is asked of a page: the same for its first answer and for everything that its stream brings later."""

    path: str
    query: QueryParams
    base: str
    id: str = ""
    """Of the execution, on its page."""

    @classmethod
    def of(cls, request: Request, path: str) -> Ask:
        return cls(path, request.query_params, base_of(request), request.path_params.get("id", ""))

    @property
    def address(self) -> str:
        """The path within the site, with the query."""
        return f"{self.path}?{self.query}" if self.query else self.path


@final
class Site:
    """One dashboard."""

    def __init__(
        self, durable: Durable, access: Access, veil: Veil, *, readonly: bool, environment_name: str
    ) -> None:
        self.durable = durable
        self.access = access
        self.veil = veil
        self.readonly = readonly
        self.environment = environment_name
        self.samples = Samples(durable)
        self._templates = environment()

    @property
    def confirms(self) -> bool:
        """Whether what hurts must be confirmed by typing a name."""
        return self.environment == "prod"

    # ---- reading, behind the veil

    async def detail(self, execution_id: str) -> ExecutionDetail:
        return self.veil.detail(await self.durable.operator.get_execution_detail(execution_id))

    async def details(self, ids: Sequence[str]) -> list[ExecutionDetail]:
        """Several at once, without those that are gone by now."""
        found = await asyncio.gather(*map(self.detail, ids), return_exceptions=True)
        return [each for each in found if isinstance(each, ExecutionDetail)]

    async def executions(self, **filters: Any) -> PageOf[Execution]:
        page = await self.durable.operator.list_executions(**filters)
        return PageOf([self.veil.execution(each) for each in page.items], page.cursor)

    def workflow_of(self, execution: Execution) -> AnyWorkflow | None:
        """The code that an execution runs, where this dashboard's application has it."""
        try:
            return self.durable.workflow(execution.workflow, execution.version)
        except UnknownWorkflow:
            return None

    # ---- writing HTML

    def page(self, page: Page, ask: Ask, content: Mapping[str, object], request: Request) -> str:
        """All of a page."""
        text = self._templates.get_template(f"{page.name}.html").render(
            **self._around(page, ask), **content, **_of(request)
        )
        return text.replace(CSRF_PLACE, request.scope["durable.csrf"])

    def fragment(self, page: Page, ask: Ask, content: Mapping[str, object]) -> str:
        """The part of a page that lives, with `CSRF_PLACE` in its forms."""
        template = self._templates.get_template(f"{page.name}.html")
        context = template.new_context({**self._around(page, ask), **content})
        return "".join(template.blocks["live"](context))

    def plain_page(self, template: str, request: Request, **content: object) -> str:
        """A page that is no `Page`: a form to log in, an error."""
        ask = Ask(request.url.path, request.query_params, base_of(request))
        text = self._templates.get_template(template).render(
            **self._around(None, ask), **content, **_of(request)
        )
        return text.replace(CSRF_PLACE, request.scope["durable.csrf"])

    def _around(self, page: Page | None, ask: Ask) -> dict[str, object]:
        return {
            "site": self,
            "ask": ask,
            "base": ask.base,
            "page": page.section if page else "",
            "has_live": page is not None,
            "navigation": NAVIGATION,
            "csrf": CSRF_PLACE,
            "now": datetime.now(UTC),
            "version": __version__,
        }


def _of(request: Request) -> dict[str, object]:
    """What a page says to the one who asked for it."""
    cookies = request.cookies
    return {
        "actor": request.scope.get("durable.actor", ""),
        "notice": unquote(cookies.get(NOTICE, "")),
        "trouble": unquote(cookies.get(PROBLEM, "")),
    }


Load: TypeAlias = Callable[[Site, Ask], Awaitable[Mapping[str, object]]]


@final
@dataclass(frozen=True, slots=True)
class Page:
    """A page: what it is called, where it is, and what its template needs."""

    name: str
    path: str
    load: Load
    section: str
    """Its place in the navigation."""
