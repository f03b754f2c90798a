"""The picture of a workflow, coloured by what one execution did of it.

The layout is a library's. Of its picture only shapes, places and words are kept, by a list of what may stay: looks come
from our stylesheet, which follows the theme, and nothing in it can be obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final
from xml.etree.ElementTree import Element, fromstring, tostring

from markupsafe import Markup

from durable.describe import WorkflowShape, describe
from durable.models import ExecutionDetail
from durable.workflow import AnyWorkflow

_SVG: Final = "{http://www.w3.org/2000/svg}"
_ELEMENTS: Final = frozenset(
    {"svg", "g", "path", "rect", "circle", "ellipse", "polygon", "line", "text", "tspan"}
)
_ATTRIBUTES: Final = frozenset(
    {
        "viewBox",
        "d",
        "x",
        "y",
        "x1",
        "y1",
        "x2",
        "y2",
        "dx",
        "dy",
        "cx",
        "cy",
        "r",
        "rx",
        "ry",
        "width",
        "height",
    }
    | {"points", "transform", "dominant-baseline"}
)
_SCALE: Final = 0.85
_NODE: Final = re.compile(r"n(\d+)")
_EDGE: Final = re.compile(r"L_n(\d+)_n(\d+)_\d+")
_DECIMALS: Final = re.compile(r"(\d\.\d)\d+")
_ARROW: Final = (
    '<marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L10 5L0 10z"/></marker>'
)
_WORDS: Final[Mapping[str, str]] = {
    "ran": "ran",
    "current": "current",
    "failed": "failed",
    "not_taken": "not taken",
    "ahead": "ahead",
}


def graph_of(workflow: AnyWorkflow, detail: ExecutionDetail | None = None) -> Markup:
    """An SVG element: the workflow's shape; with what an execution did of it, where one is given.

    Raises:
        ConfigurationError: the extra `diagrams` is not installed.
    """
    shape, drawing = _drawn(workflow)
    states: Mapping[str, str] = {} if detail is None else shape.overlay(detail).states
    by_number = {str(number): states.get(node.id, "ahead") for number, node in enumerate(shape.nodes)}
    root = fromstring(drawing)
    for element in root.iter():
        if (number := element.attrib.pop("data-node", None)) is not None:
            state = by_number.get(number, "ahead")
            element.set("class", f"node {shape.nodes[int(number)].kind} {state if states else 'plain'}")
            if states:
                title = Element("title")
                title.text = f"{shape.nodes[int(number)].label}: {_WORDS[state]}"
                element.insert(0, title)
        elif (number := element.attrib.pop("data-words", None)) is not None:
            element.set("class", f"words {by_number.get(number, 'ahead') if states else 'plain'}")
        elif (edge := element.attrib.pop("data-edge", None)) is not None:
            source, _, target = edge.partition(" ")
            taken = all(by_number.get(end) in ("ran", "current", "failed") for end in (source, target))
            element.set("class", f"edge {'plain' if not states else 'taken' if taken else 'ahead'}")
    root.set("role", "img")
    root.set("aria-label", f"The graph of {shape.name}{_summary(shape, states)}")
    return Markup(tostring(root, encoding="unicode"))


def _summary(shape: WorkflowShape, states: Mapping[str, str]) -> str:
    said = [
        f"{node.label} {_WORDS[states[node.id]]}"
        for node in shape.nodes
        if states.get(node.id, "ahead") != "ahead"
    ]
    return f": {', '.join(said)}" if said else ""


@lru_cache(maxsize=64)
def _drawn(workflow: AnyWorkflow) -> tuple[WorkflowShape, str]:
    """The shape, and its picture with the numbers of its nodes."""
    shape = describe(workflow)
    root = _kept(fromstring(shape.to_svg()))
    assert root is not None
    numbers = [each.get("data-node", "") for each in root.iter() if "data-node" in each.attrib]
    words = [each for each in root.iter() if each.get("class") == "words"]
    if len(words) == len(numbers):  # each node has its words apart from it, in the same order
        for group, number in zip(words, numbers, strict=True):
            group.set("data-words", number)
    root.insert(0, fromstring(_ARROW))
    return shape, tostring(root, encoding="unicode")


def _kept(element: Element) -> Element | None:
    name = element.tag.removeprefix(_SVG)
    if name not in _ELEMENTS:
        return None
    attributes = {key: value for key, value in element.attrib.items() if key in _ATTRIBUTES}
    kept = Element(name, {key: _DECIMALS.sub(r"\1", value) for key, value in attributes.items()})
    if name == "svg":
        kept.attrib.pop("height", None)
        _, _, width, height = attributes["viewBox"].split()
        size = {"width": f"{_SCALE * float(width):.0f}", "height": f"{_SCALE * float(height):.0f}"}
        kept.attrib.update({"class": "graph", **size})
    kept.text, kept.tail = element.text, element.tail
    for key, value in _marked(element):
        kept.set(key, value)
    kept.extend(child for each in element if (child := _kept(each)) is not None)
    return kept


def _marked(element: Element) -> Iterator[tuple[str, str]]:
    """What tells which node or edge of the shape it is, and what it is for."""
    classes = element.get("class", "").split()
    _, _, id = element.get("id", "").rpartition("-")[0].rpartition("-")
    source = element.get("data-merman-source-classes", "").split()
    if "node" in classes and (node := _NODE.fullmatch(id)):
        yield "data-node", node[1]
    elif element.tag == f"{_SVG}path" and (edge := _EDGE.fullmatch(element.get("data-id", ""))):
        yield "data-edge", f"{edge[1]} {edge[2]}"
        yield "marker-end", "url(#arrow)"
    elif element.tag == f"{_SVG}g" and source:
        yield "class", "words" if "node" in source else "edge-words"
