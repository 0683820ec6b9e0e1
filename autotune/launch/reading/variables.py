"""Variables and sums in texts of shells: what is known of them is filled in, the rest stays as it stands."""

from __future__ import annotations

import ast
import operator
import re
import shlex
from collections.abc import Callable, Iterator, Mapping

from autotune.launch.reading.quotes import after

MAX_EXPRESSION = 200
MAX_VALUE = 20_000
"""Characters of a variable's value."""
MAX_WRITTEN = 200_000
"""Characters of values that are written into a line."""
_PLAIN = re.compile(r"[\w./:=,@%+~-]*")
NAME = r"[A-Za-z_]\w*"
_VARIABLE = re.compile(
    rf"\$\(\((?P<sum>[^()]{{0,80}}(?:\([^()]{{0,80}}\)[^()]{{0,80}}){{0,4}})\)\)"
    rf"|\$\{{(?P<braced>{NAME}|[1-9])(?:\[[@*]\])?(?::?(?P<how>[-=?])(?P<default>[^{{}}]*))?\}}|\$\((?P<parenthesised>{NAME})\)|\$(?P<plain>{NAME}|[1-9])"
)
_BARE = re.compile(rf"(?:(?<=\s)|^)(?:\$\{{?(?P<name>{NAME})\}}?|\"\$\{{(?P<array>{NAME})\[@\]\}}\")(?=\s|$)")
_OPERATORS: Mapping[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def expand(text: str, env: Mapping[str, str]) -> str:
    """Text with the variables that are known and the sums of them; others stay as they are."""

    def known(match: re.Match[str]) -> str:
        if match["sum"] is not None:
            value = arithmetic(match["sum"], env)
            return match[0] if value is None else str(value)
        name = match["braced"] or match["parenthesised"] or match["plain"]
        fallback = None if match["how"] == "?" else match["default"]
        if name in env and (env[name] or fallback is None):
            return env[name]
        return match[0] if fallback is None else expand(fallback, env) if "$" in fallback else fallback

    return _VARIABLE.sub(known, text)


def take_defaults(line: str, env: dict[str, str]) -> None:
    """Set what `${NAME:=VALUE}` sets where it is expanded: the variable, if it has no value."""
    for match, _ in _expanded_in(line) if "=" in line else ():
        if match["how"] == "=" and not env.get(match["braced"]):
            env[match["braced"]] = expand(match["default"].strip("\"'"), env)[:MAX_VALUE]


def _expanded_in(line: str) -> Iterator[tuple[re.Match[str], str]]:
    """Variables of a line that a shell expands, which are those outside of single quotes, and the quotation around."""
    quote, escaped, at = "", False, 0
    for match in _VARIABLE.finditer(line):
        while at < match.start():
            quote, escaped = after(line[at], quote, escaped)
            at += 1
        if quote != "'" and not escaped:
            yield match, quote


def unknown_variables(text: str) -> list[str]:
    """Names of the variables that are left in a text."""
    names = [m["braced"] or m["plain"] for m in _VARIABLE.finditer(text) if m["braced"] or m["plain"]]
    for sum_ in (m["sum"] for m in _VARIABLE.finditer(text) if m["sum"]):
        names += re.findall(NAME, sum_)
    return list(dict.fromkeys([*names, *(m["parenthesised"] for m in _VARIABLE.finditer(text) if m["parenthesised"])]))


def arithmetic(expression: str, env: Mapping[str, str]) -> int | None:
    """The value of a sum such as `TP * NODES / 2`; None: a variable is not known, or it is something else."""
    if len(expression) > MAX_EXPRESSION:
        return None
    filled = re.sub(rf"\$?\{{?({NAME})\}}?", lambda m: env.get(m[1], "?"), expression)
    try:
        return _value(ast.parse(filled.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        return None


def _value(node: ast.AST) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 10**12:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        found = _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
        if abs(found) < 10**12:
            return found
    raise ValueError("no sum of whole numbers")


def expanded_words(line: str, env: Mapping[str, str]) -> str:
    """A line with its sums, in which variables are what they hold: alone and outside of quotes all words of it."""

    def words(match: re.Match[str]) -> str:
        name = match["name"] or match["array"]
        return env[name] if name in env and _splits(env[name]) else match[0]

    return _within_words(_BARE.sub(words, summed(line, env)), env) if "$" in line else line


def _within_words(line: str, env: Mapping[str, str]) -> str:
    """A line in which variables within words and double quotes are the values that they have there."""
    out, last, room = list[str](), 0, MAX_WRITTEN
    for match, quote in _expanded_in(line):
        value = _written(match, quote, env, room)
        if value is not None:
            room -= len(value)
            out += [line[last : match.start()], value]
            last = match.end()
    return "".join((*out, line[last:]))


def _written(match: re.Match[str], quote: str, env: Mapping[str, str], room: int) -> str | None:
    """What stands for a variable in its quotation; None: it is not known, too long, or would be other words there."""
    name = match["braced"] or match["plain"]
    value = None if name is None else env.get(name)
    if value is None and match["how"] == "?":
        return f"${{{name}}}"  # its message is words of its own
    if value is None or len(value) > room or (not value and match["default"] is not None):
        return None
    if quote:
        return re.sub(r'([\\"])', r"\\\1", value)
    return value if _PLAIN.fullmatch(value) else None


def summed(line: str, env: Mapping[str, str]) -> str:
    """A line with the sums that are known; others without spaces, so that each is one word."""

    def known(match: re.Match[str]) -> str:
        if match["sum"] is None:
            return match[0]
        value = arithmetic(match["sum"], env)
        return f"$(({''.join(match['sum'].split())}))" if value is None else str(value)

    return _VARIABLE.sub(known, line)


def _splits(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True
