"""Pictures of Mermaid flowcharts. Other people's libraries lay them out: the extra `diagrams`."""

from __future__ import annotations

import importlib
from types import ModuleType

from durable.errors import ConfigurationError


def svg(source: str) -> str:
    """A flowchart as SVG, whose labels are plain SVG text.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    text: str = _library("mmdr").render(source, backend="merman").svg()
    return text


def ascii_art(source: str) -> str:
    """A flowchart of letters and lines. Raises `ConfigurationError` as `svg` does."""
    text: str = _library("termaid").render(source)
    return text


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigurationError(
            f"pictures are laid out by {name}, which is not installed",
            "pip install 'durable[diagrams]', or give the text of to_mermaid() or to_dot() to another program",
        ) from None
