"""Python files that start an engine: `LLM(...)`, `sgl.Engine(...)`, `EngineArgs(...)`, `LLMConfig(...)`, commands.

Nothing is run: literals, names that hold such, and defaults of `argparse` and of the environment are what is known.
What only a run would show stays a variable, as `$TP`, and is asked for.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import yaml

from autotune.engines import ENGINES
from autotune.launch.reading.parse import starts_something
from costmodel.errors import InputError

_MODELS = ("model", "model_path")
_CASTS = ("str", "int", "float", "bool", "Path")
_OPERATORS: Mapping[type, Any] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
}
MAX_CHARACTERS = 100_000
_LARGEST = 100_000
"""Of a number or a text that is made from others."""


@dataclass(slots=True, kw_only=True)
class PythonFile:
    """What a Python file starts."""

    services: list[Any]
    """Mappings as Compose and Ray Serve have them, with a command or a server's fields."""
    scripts: list[tuple[str, int]]
    """Shell commands and how often each is run."""
    files: dict[str, str]
    """Name -> content of those that the commands name."""


def read_python(text: str, given: Mapping[str, str], path: str) -> PythonFile:
    """Read a Python file; `given` are variables that hold whatever it sets.

    Raises:
        InputError: it is no Python, or too large.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError.single(path, f"must be at most {MAX_CHARACTERS:,} characters, got {len(text):,}")
    try:
        nodes = list(_in_order(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError.single(path, f"must be a Python file: {error}") from error
    found = PythonFile(services=[], scripts=[], files={})
    values = _Values(given)
    engines: dict[str, str] = {}
    commands: dict[str, int] = {}
    for node, loops in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            engines |= _imported(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            values.assign(node)
        elif isinstance(node, ast.Call) and _is_path(node.func):
            first, _, last = ast.unparse(node.func).partition(".")
            name = (last or first).rpartition(".")[2]
            values.learn(name, node)
            times = min(prod(values.turns(loop) for loop in loops), _LARGEST)
            if name == "LLMConfig":
                found.services.append({"applications": [{"args": {"llm_configs": [values.keywords(node)]}}]})
            elif first in engines and name in ENGINES[engines[first]].python_classes:
                service = _server(engines[first], values, node, found.files)
                found.services.append({"replicas": times, "service": service})
            elif node.args and (command := values.command(node.args[0])) is not None:
                commands.setdefault(command, times)  # a command is often printed before it is run
    found.scripts = [] if found.services else list(commands.items())
    return found


def _in_order(tree: ast.AST, loops: tuple[ast.expr, ...] = ()) -> Iterator[tuple[ast.AST, tuple[ast.expr, ...]]]:
    """Every node as it stands in the file, those within others after them, and what the loops around it go over."""
    if isinstance(tree, ast.For):
        loops = (*loops, tree.iter)
    elif isinstance(tree, ast.ListComp):
        loops = (*loops, *(generator.iter for generator in tree.generators))
    for node in ast.iter_child_nodes(tree):
        yield node, loops
        yield from _in_order(node, loops)


def _is_path(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_path(node.value))


def _imported(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Names that an import brings -> the engine of the package."""
    package = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    named = {a.asname or a.name.partition(".")[0]: (package or a.name).partition(".")[0] for a in node.names}
    engines = {engine.python_package or name: name for name, engine in ENGINES.items()}
    return {name: engines[of] for name, of in named.items() if of in engines}


def _server(engine: str, values: _Values, node: ast.Call, files: dict[str, str]) -> Any:
    """A service whose options are the arguments of a class, as a configuration file holds them."""
    fields = values.keywords(node)
    models = [fields.pop(name) for name in _MODELS if name in fields]
    models += [values.of(argument) for argument in node.args[:1]]
    name = f"arguments-{len(files)}.yaml"
    files[name] = yaml.safe_dump(fields)
    model = [] if not models else [str(models[0])]
    if model and not ENGINES[engine].model_is_positional:
        model = ["--model-path", *model]
    return {"entrypoint": [*ENGINES[engine].programs[0], *model, f"--{ENGINES[engine].config_option}", name]}


class _Values:
    """What names hold where that is known without running anything."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._held: dict[str, Any] = {}

    def assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        """Take `A = 1`, `a.b = 1` or `A += [1]`."""
        if node.value is None:
            return
        value = self.of(node.value)
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if not _is_path(target):
                continue
            name = ast.unparse(target).rpartition(".")[2]
            if isinstance(node, ast.AugAssign):
                before = self._held.get(name)
                value = before + value if isinstance(before, list) and isinstance(value, list) else None
            self._held[name] = value

    def learn(self, name: str, node: ast.Call) -> None:
        """Take what a call says of names: the default of `add_argument("--tp", default=8)`, `cmd.extend([...])`."""
        if name == "add_argument" and node.args:
            said = {k.arg: k.value for k in node.keywords}
            flag = self.of(node.args[-1])
            if isinstance(flag, str) and "default" in said:
                self._held.setdefault(flag.lstrip("-").replace("-", "_"), self.of(said["default"]))
        elif name in ("extend", "append") and isinstance(node.func, ast.Attribute) and node.args:
            held, more = self._held.get(ast.unparse(node.func.value)), self.of(node.args[0])
            if isinstance(held, list):
                held.extend(more if name == "extend" and isinstance(more, list) else [more])

    def keywords(self, node: ast.Call) -> dict[str, Any]:
        """The named arguments of a call, those of `**fields` among them."""
        out: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.of(keyword.value)
            out |= {keyword.arg: value} if keyword.arg else value if isinstance(value, dict) else {}
        return out

    def command(self, node: ast.expr) -> str | None:
        """The shell command that an argument is; None: it starts nothing."""
        held = self.of(node)
        if isinstance(held, list) and held and all(not isinstance(item, list | dict) for item in held):
            held = " ".join(str(i) if str(i).startswith("$") else shlex.quote(str(i)) for i in held)
        return held if isinstance(held, str) and starts_something(held) else None

    def turns(self, loop: ast.expr) -> int:
        """How often a loop runs that goes over an expression; 1 where that is not known."""
        if isinstance(loop, ast.Call) and ast.unparse(loop.func) == "range":
            bounds = [self.of(argument) for argument in loop.args]
            return len(range(*bounds)) if bounds and all(type(b) is int for b in bounds) and bounds[2:] != [0] else 1
        held = self.of(loop)
        return len(held) if isinstance(held, list | dict) else 1

    def of(self, node: ast.expr) -> Any:
        """The value of an expression; `$NAME` where it is not known."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str | int | float | bool | None) else str(node.value)
        if isinstance(node, ast.List | ast.Tuple):
            return [self.of(item) for item in node.elts]
        if isinstance(node, ast.Dict):
            return {str(self.of(k)): self.of(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values]
            return "".join(str(self.of(part)) for part in parts)[:_LARGEST]
        if isinstance(node, ast.Call):
            return self._called(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return self._made(node)
        if isinstance(node, ast.IfExp) and isinstance(test := self.of(node.test), bool):
            return self.of(node.body if test else node.orelse)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
            return self._variable(self.of(node.slice), None)
        return self._named(ast.unparse(node).rpartition(".")[2]) if _is_path(node) else "$UNKNOWN"

    def _named(self, name: str) -> Any:
        return self._given.get(name, self._held.get(name, f"${name}"))

    def _variable(self, name: Any, default: Any) -> Any:
        return self._given.get(str(name), f"${name}" if default is None else default)

    def _called(self, node: ast.Call) -> Any:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in _CASTS and len(node.args) == 1:
            return self.of(node.args[0])
        if name == "getenv" or ast.unparse(node.func).endswith("environ.get"):
            given = [self.of(argument) for argument in node.args]
            return self._variable(given[0], given[1] if len(given) > 1 else None) if given else None
        if name == "join" and len(node.args) == 1:
            return self.command(node.args[0]) or "$UNKNOWN"
        return self.keywords(node) if node.keywords and not node.args else self._named(name)

    def _made(self, node: ast.BinOp) -> Any:
        a, b = self.of(node.left), self.of(node.right)
        numbers = type(a) is type(b) is int and max(abs(a), abs(b)) <= _LARGEST
        texts = type(a) is type(b) and isinstance(a, str | list) and len(a) + len(b) <= _LARGEST
        if not numbers and not (texts and isinstance(node.op, ast.Add)):
            return "$UNKNOWN"
        try:
            return _OPERATORS[type(node.op)](a, b)
        except ArithmeticError:
            return "$UNKNOWN"
