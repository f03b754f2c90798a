"""The shape of a workflow at another revision of its source: git gives the files, and none of them is imported."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias, final

from durable.describe.body import Body, loaded
from durable.describe.drafts import Draft, Drawing
from durable.describe.frames import Frame
from durable.describe.live import drawn
from durable.describe.shape import WorkflowShape
from durable.describe.source import builtin, parsed
from durable.describe.values import UNKNOWN, AWorkflow, Function, Known, Module, Value
from durable.errors import ConfigurationError
from durable.workflow import AnyWorkflow

Reader: TypeAlias = Callable[[PurePosixPath], str | None]
"""The text of a file in the repository, by its path from there; None, if there is none."""

_PATIENCE: Final = 30.0
_HINT: Final = "give a revision that git knows, such as HEAD, main or HEAD~3"


def shapes_since(workflow: AnyWorkflow, revision: str) -> tuple[WorkflowShape | None, WorkflowShape]:
    """The shape at `revision`, None where the workflow was not there; and the present one, read the same way.

    Both are read from the source alone, of which the present one is that of the files, committed or not.

    Raises:
        ConfigurationError: its file is in no git repository, git knows no such revision, or the workflow is
            not defined at the top of a module.
    """
    function = inspect.unwrap(workflow.fn)
    file = Path(function.__code__.co_filename)
    if not file.is_file():
        raise ConfigurationError(f"workflow {workflow.name} comes from no file", "describe it without --diff")
    root = Path(_git(file.parent, "rev-parse", "--show-toplevel").strip())
    commit = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").strip()
    path = PurePosixPath(file.resolve().relative_to(root.resolve()).as_posix())

    def committed(path: PurePosixPath) -> str | None:
        try:
            return _git(root, "show", f"{commit}:{path}")
        except ConfigurationError:
            return None

    def present(path: PurePosixPath) -> str | None:
        try:
            return (root / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    module = "" if function.__module__ == "__main__" else function.__module__
    now = Sources(present, path, module).shape_of(workflow)
    if now is None:
        raise ConfigurationError(
            f"workflow {workflow.name} is not defined at the top of {path}",
            "its shape can be compared when it is not made by a function",
        )
    return Sources(committed, path, module).shape_of(workflow), now


@final
class Sources:
    """Modules by their source, at one revision."""

    def __init__(self, read: Reader, path: PurePosixPath, module: str) -> None:
        self._read = read
        self._path = path
        names = module.split(".") if module else [path.stem]
        depth = len(names) - (0 if path.name == "__init__.py" else 1)
        self._base = PurePosixPath(*path.parent.parts[: max(0, len(path.parent.parts) - depth)])
        self._name = ".".join(names)
        self._modules: dict[str, Value] = {}

    def shape_of(self, workflow: AnyWorkflow) -> WorkflowShape | None:
        """The shape of a workflow of that name, else of the function of that name; None if there is neither."""
        module = self._module(self._name, self._path)
        if not isinstance(module, Module) or not isinstance(module.scope, Frame):
            return None
        found = {name: value for name, value in module.scope.names.items() if isinstance(value, AWorkflow)}
        same = [value for value in found.values() if value.name == workflow.name]
        value = same[0] if same else found.get(workflow.fn.__name__)
        if value is None or not isinstance(value.fn, Function):
            return None
        compensates = workflow.rollback == "on_failure"
        return drawn(value.name, workflow.version, value.fn, compensates=compensates, modules=self.modules)

    def modules(self, name: str) -> Value:
        """What a name imports: of the repository the source, of anything else what is loaded."""
        if name in self._modules:
            return self._modules[name]
        top = name.partition(".")[0]
        if not name or top == "durable" or top in sys.stdlib_module_names:
            return loaded(name)
        stem = self._base.joinpath(*name.split("."))
        for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
            module = self._module(name, path)
            if module is not UNKNOWN:
                return module
        return loaded(name)

    def _module(self, name: str, path: PurePosixPath) -> Value:
        text = self._read(path)
        tree = None if text is None else parsed(text)
        if tree is None:
            return UNKNOWN
        frame = Frame(_Top(str(path)), None)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        frame.bind("__package__", Known(package))
        frame.bind("__name__", Known(name))
        self._modules[name] = module = Module(frame)
        aside = Drawing(Draft("start", name), Draft("end", "end"))  # what happens while it is imported
        Body(aside, frame, self.modules).body(tree.body)
        return module


@final
class _Top:
    """What is around a module: what Python itself has."""

    def __init__(self, file: str) -> None:
        self.file = file

    def lookup(self, name: str) -> Value | None:
        return builtin(name)


def _git(directory: Path, *arguments: str) -> str:
    try:
        run = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"git could not be asked: {error}", "install git, or leave out --diff"
        ) from error
    if run.returncode != 0:
        raise ConfigurationError(f"git says: {run.stderr.strip() or 'no'}", _HINT)
    return run.stdout
