"""No engine's name stands outside the engines' rooms: who decides by a name belongs there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.engines import ENGINES

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("autotune/engines/", "costmodel/engine.py")
WRITTEN_BY_OTHERS = (
    "autotune/launch/reading/charts.py",
    "autotune/launch/reading/front.py",
    "autotune/launch/reading/sources.py",
    "autotune/traffic/metric_names.py",
    "autotune/validation/bench_tools.py",
)
"""Readers of what other tools write, whose keys, metrics and titles hold an engine's name."""
POOLS = "autotune/launch/pools/"
"""How the pools of an engine are connected, which rests on plans of pools, that the engines' room knows nothing of."""
NAMES = re.compile(
    "|".join(re.escape(word) for e in ENGINES.values() for word in (e.name, e.title, type(e).__name__)), re.IGNORECASE
)


def spoken(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every string constant, parts of f-strings among them, and every identifier; no docstrings."""
    notes = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        for statement in node.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and id(node) not in notes:
            yield node.lineno, node.value if isinstance(node.value, str) else node.value.decode("utf-8", "replace")
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, (ast.ImportFrom, ast.Import)):
            names = [alias.name for alias in node.names]
            yield node.lineno, " ".join([*names, getattr(node, "module", None) or ""])
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.arg)):
            yield node.lineno, node.arg if isinstance(node, ast.arg) else node.name


def named(text: str) -> list[int]:
    """Lines of a module that name an engine."""
    return [line for line, word in spoken(ast.parse(text)) if NAMES.search(word)]


def test_no_engine_is_named_outside_its_room() -> None:
    """Of every module of both packages; words in docstrings and comments do not decide anything."""
    modules = [p for package in ("autotune", "costmodel") for p in sorted((ROOT / package).rglob("*.py"))]
    assert len(modules) > 200
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules
        if not path.relative_to(ROOT).as_posix().startswith((*ROOMS, *WRITTEN_BY_OTHERS, POOLS))
        for line in named(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        'x = "vllm"',
        'def f(engine): return engine == "sglang"',
        'y = f"{x} of TensorRT-LLM"',
        "class A:\n    b = {'trtllm': 1}",
        "import autotune.engines.vllm",
        "from autotune.engines.sglang import SGLANG as S",
        "engine_is_vllm = 1.0",
        'b = b"vllm:"',
    ],
)
def test_a_name_is_seen_wherever_it_stands(text: str) -> None:
    """The test above would see a name in any of these places."""
    assert named(text)


def test_docstrings_may_name_engines() -> None:
    """Of modules, classes, functions and attributes."""
    text = (
        '"""vLLM."""\nclass A:\n    """SGLang."""\n    b = 1\n    """trtllm"""\n    def c(self):\n        """vLLM."""\n'
    )
    assert named(text) == []
