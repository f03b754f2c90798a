"""A corpus of workflows in all styles. The docstring of each says what its graph is, edge by edge.

DURABLE_TEST_LONG=1       Mermaid itself, which takes most of a second, draws each of them, and not some
"""

from __future__ import annotations

import os
import re
from types import ModuleType
from xml.etree import ElementTree

import mermaidx
import mmdr
import pydot
import pytest

from durable import Workflow, WorkflowShape, describe
from tests.describe.corpus import choices, failures, functions, loops, names, parallel, straight

MODULES: tuple[ModuleType, ...] = (straight, choices, loops, failures, parallel, functions, names)
CORPUS = [
    pytest.param(found, id=f"{module.__name__.rpartition('.')[2]}-{found.name}")
    for module in MODULES
    for found in vars(module).values()
    if isinstance(found, Workflow) and found.fn.__module__ == module.__name__
]
ARROW = re.compile(r" -(?:([^>].*?)-)?> ")

SOME = CORPUS if os.environ.get("DURABLE_TEST_LONG") == "1" else CORPUS[::20]

each_workflow = pytest.mark.parametrize("workflow", CORPUS)


def expected(workflow: Workflow) -> set[tuple[str, str, str]]:
    """The edges that a docstring names: `a -> b -> c`, and `a -timeout-> b` for one with a label."""
    edges: set[tuple[str, str, str]] = set()
    for line in (workflow.fn.__doc__ or "").strip().splitlines():
        parts = ARROW.split(line.strip())
        for source, label, target in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
            edges.add((source, target, label or ""))
    return edges


def drawn(shape: WorkflowShape) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.target, edge.label) for edge in shape.edges}


def test_the_corpus_has_many_styles() -> None:
    assert len(CORPUS) >= 60


@each_workflow
def test_the_graph_is_what_the_docstring_says(workflow: Workflow) -> None:
    assert drawn(describe(workflow)) == expected(workflow)


@each_workflow
def test_ids_are_unique_and_edges_join_nodes(workflow: Workflow) -> None:
    shape = describe(workflow)
    ids = [node.id for node in shape.nodes]
    assert len(set(ids)) == len(ids)
    assert {id for edge in shape.edges for id in (edge.source, edge.target)} <= set(ids)
    assert shape.nodes[0].kind == "start"
    assert shape.nodes[-1].kind == "end"


@each_workflow
def test_every_node_is_reached_from_the_start(workflow: Workflow) -> None:
    shape = describe(workflow)
    reached, left = set[str](), [shape.nodes[0].id]
    while left:
        here = left.pop()
        if here not in reached:
            reached.add(here)
            left += [edge.target for edge in shape.edges if edge.source == here]
    unreached = {node.id for node in shape.nodes if node.id not in reached}
    assert unreached <= {"end"}  # that of a workflow that never ends
    assert not unreached or workflow.name == "for_ever"


@each_workflow
def test_a_renderer_of_mermaid_takes_the_flowchart(workflow: Workflow) -> None:
    shape = describe(workflow)
    assert ElementTree.fromstring(mmdr.render(shape.to_mermaid(), backend="merman").svg()) is not None


@pytest.mark.parametrize("workflow", SOME)
def test_mermaid_itself_draws_every_node(workflow: Workflow) -> None:
    shape = describe(workflow)
    root = ElementTree.fromstring(mermaidx.render(shape.to_mermaid()).svg())
    drawn = [part for part in root.iter() if "node" in (part.get("class") or "").split()]
    assert len(drawn) == len(shape.nodes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot calls pyparsing by old names
@each_workflow
def test_a_parser_of_dot_finds_every_node_and_edge(workflow: Workflow) -> None:
    shape = describe(workflow)
    (graph,) = pydot.graph_from_dot_data(shape.to_dot()) or []
    assert len(graph.get_nodes()) == len(shape.nodes)
    assert len(graph.get_edges()) == len(shape.edges)
