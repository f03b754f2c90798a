"""Shapes as text that others draw: hostile labels say what they say, and are obeyed by nobody."""

from __future__ import annotations

import sys
from typing import Any
from xml.etree import ElementTree

import mermaidx
import pydot
import pytest

from durable import ConfigurationError, WorkflowShape, describe
from durable.describe import Edge, Node
from durable.describe.dot import quoted
from durable.describe.mermaid import OUTLINES, escaped
from tests.describe.corpus import choices

HOSTILE = [
    '"quoted"',
    "a]b)c}d|e",
    "<script>alert(1)</script>",
    "end",
    "#quot; &amp; %%{init: {}}%%",
    "`markdown`",
    "back\\slash",
    "one\ntwo; three --> four",
    "click n0 call x()",
    "Grüße 日本 🚀",
    "\x1b[31mred\x00",
    "\\",
    "",
]


def texts(svg: str) -> str:
    return " ".join("".join(ElementTree.fromstring(svg).itertext()).split())


def test_mermaid_itself_shows_each_kind_of_node_with_its_label() -> None:
    kinds = {outline: kind for kind, outline in OUTLINES.items()}.values()
    nodes = tuple(Node(kind, kind, f'<b>"]}}#35;|{index}') for index, kind in enumerate(kinds))
    edges = (Edge(nodes[0].id, nodes[1].id, '"|<i>'), Edge(nodes[1].id, nodes[2].id))
    shown = texts(mermaidx.render(WorkflowShape("any", "1", nodes, edges).to_mermaid()).svg())
    for node in nodes:
        assert node.label in shown
    assert '"|<i>' in shown


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_is_shown_and_changes_nothing_around_it(label: str) -> None:
    shape = WorkflowShape(
        "order",
        "1",
        (Node("start", "start", label), Node("x", "decision", label), Node("end", "end", "end")),
        (Edge("start", "x", label), Edge("x", "end")),
    )
    root = ElementTree.fromstring(shape.to_svg())
    groups = [part for part in root.iter() if (part.get("class") or "").startswith("node ")]
    assert len(groups) == 3
    assert not [
        part for part in root.iter() if part.tag.rpartition("}")[2] in ("script", "foreignObject", "a")
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot calls pyparsing by old names
@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_stays_a_string_in_dot(label: str) -> None:
    shape = WorkflowShape(label, "1", (Node("start", "start", label), Node("end", "end", label)), ())
    (graph,) = pydot.graph_from_dot_data(shape.to_dot()) or []
    nodes: list[Any] = graph.get_nodes()
    assert [node.get("label") for node in nodes] == [quoted(label)] * 2


def test_nothing_but_letters_digits_and_harmless_signs_is_left_in_mermaid() -> None:
    assert escaped('a"b<c>#;|`[]{}\\') == "a#34;b#60;c#62;#35;#59;#124;#96;#91;#93;#123;#125;#92;"
    assert escaped("a\nb\x1b") == "a b#27;"


def test_a_terminal_gets_a_picture_of_letters() -> None:
    art = describe(choices.matched).to_ascii()
    assert "approved" in art
    assert "remind" in art
    assert len(art.splitlines()) > 10


@pytest.mark.parametrize(("library", "draw"), [("mmdr", "to_svg"), ("termaid", "to_ascii")])
def test_without_the_extra_a_picture_is_refused_with_what_to_install(
    library: str, draw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=library) as raised:
        getattr(describe(choices.matched), draw)()
    assert "durable[diagrams]" in raised.value.hint
