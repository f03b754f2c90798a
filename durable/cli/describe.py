"""`durable describe`: what a workflow may do, read from its source, and what of that has changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from durable.app import Durable
from durable.cli import completion
from durable.cli.application import AppOption, find_application, is_reference
from durable.cli.output import clean, console, print_json
from durable.describe import WorkflowShape, describe as shape_of
from durable.describe.changes import differences
from durable.describe.revision import shapes_since
from durable.errors import InvalidInput
from durable.workflow import AnyWorkflow


class Format(StrEnum):
    """How a shape is told."""

    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"
    JSON = "json"
    ASCII = "ascii"


def describe(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODULE:NAME] WORKFLOW",
            help="What to describe.",
            autocompletion=completion.own_workflows,
        ),
    ],
    app: AppOption = None,
    version: Annotated[str | None, typer.Option(help="Another version than the highest.")] = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="svg and ascii need the extra: durable[diagrams].")
    ] = Format.MERMAID,
    diff: Annotated[
        str | None, typer.Option(metavar="REVISION", help="What has changed since that revision in git.")
    ] = None,
) -> None:
    """Show what a workflow may do, as its source says. Nothing of it runs, and no store is asked.

    \b
    Examples:
      durable describe --app app:durable fulfil_order
      durable describe app:durable fulfil_order --format svg > fulfil_order.svg
      durable describe fulfil_order --diff main
    """
    reference, name = _arguments(arguments, app)
    durable: Durable = find_application(reference)
    workflow = durable.workflow(name, version)
    if diff is not None:
        _print_differences(workflow, diff, format)
        return
    shape = shape_of(workflow)
    text = _told(shape, format)
    console().print(text if format is Format.SVG else _safe(text), end="" if text.endswith("\n") else "\n")


def _arguments(given: list[str], app: str | None) -> tuple[str | None, str]:
    match given:
        case [name]:
            return app, name
        case [reference, name] if is_reference(reference):
            return reference, name
        case _:
            raise InvalidInput(
                f"describe takes one workflow, not {len(given)} arguments",
                "durable describe app:durable order",
            )


def _told(shape: WorkflowShape, format: Format) -> str:
    match format:
        case Format.MERMAID:
            return shape.to_mermaid()
        case Format.DOT:
            return shape.to_dot()
        case Format.SVG:
            return shape.to_svg()
        case Format.JSON:
            return shape.to_json()
        case Format.ASCII:
            return shape.to_ascii()


def _safe(text: str) -> str:
    """The text, line by line, with nothing in it that a terminal would obey."""
    return "".join(f"{''.join(clean(char) for char in line)}\n" for line in text.splitlines())


def _print_differences(workflow: AnyWorkflow, revision: str, format: Format) -> None:
    before, after = shapes_since(workflow, revision)
    out = console()
    if before is None:
        out.print(clean(f"{workflow.name} is not there at {revision}: all of it is new"))
        return
    found = differences(before, after)
    if format is Format.JSON:
        print_json(found)
    elif not found:
        out.print(clean(f"{workflow.name} has the steps that it had at {revision}"))
    else:
        for difference in found:
            out.print(clean(str(difference)))
