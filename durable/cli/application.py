"""The application: the `Durable` of the user's own code, found by `module:name` or by looking around."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final

import typer

from durable.app import Durable
from durable.errors import ConfigurationError, DurableError
from durable.names import did_you_mean

AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        envvar="DURABLE_APP",
        metavar="MODULE:NAME",
        help="Your Durable. Without it: the only one in app.py, main.py or workflows.py.",
    ),
]
CodeOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:NAME",
        help="Your Durable, with its own store: needed where a function of yours decides.",
    ),
]

_HINT: Final = "name it with --app module:name, as in --app app:durable"
_LOOKED_AT: Final = ("app", "main", "workflows")
_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*")


def is_reference(text: str) -> bool:
    """Whether this looks like `module:name`."""
    return _REFERENCE.fullmatch(text) is not None


def find_application(reference: str | None) -> Durable:
    """The `Durable` that is meant, imported with the current directory on the path.

    Raises:
        ConfigurationError: there is none, there are several, or its module cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if reference is None:
        modules = [name for name in _LOOKED_AT if Path(f"{name}.py").is_file()]
        if not modules:
            raise ConfigurationError(
                f"there is no {', '.join(_LOOKED_AT)}.py here to find a Durable in", _HINT
            )
        return _only(modules)
    module, colon, name = reference.partition(":")
    return _named(module, name) if colon else _only([module])


def _named(module: str, path: str) -> Durable:
    found: object = _imported(module)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            there = [each for each, value in vars(_imported(module)).items() if isinstance(value, Durable)]
            hint = did_you_mean(path, there) + _HINT
            raise ConfigurationError(f"{module} has no {path}", hint) from None
    if not isinstance(found, Durable):
        raise ConfigurationError(f"{module}:{path} is a {type(found).__name__} and no Durable", _HINT)
    return found


def _only(modules: list[str]) -> Durable:
    found: dict[int, tuple[str, Durable]] = {}
    for module in modules:
        for name, value in vars(_imported(module)).items():
            if isinstance(value, Durable):
                found.setdefault(id(value), (f"{module}:{name}", value))
    match list(found.values()):
        case [(_, only)]:
            return only
        case []:
            raise ConfigurationError(f"there is no Durable in {' or '.join(modules)}", _HINT)
        case several:
            names = ", ".join(name for name, _ in several)
            raise ConfigurationError(f"there are several Durables: {names}", "choose one with --app")


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except DurableError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"there is no module {module!r} in {Path.cwd()} or on the path", _HINT
            ) from None
        raise _broken(module, error) from error
    except (Exception, SystemExit) as error:  # it is user code, and may raise anything
        raise _broken(module, error) from error


def _broken(module: str, error: BaseException) -> ConfigurationError:
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return ConfigurationError(
        f"{module} cannot be imported: {type(error).__name__}: {error}{at}",
        f'mend it: `python -c "import {module}"` shows where it fails',
    )
