"""Functions of shell scripts: what they do stands where they are called, with the words that they are called with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from autotune.launch.reading.quotes import after, commands_of, words_of
from autotune.launch.reading.variables import MAX_WRITTEN, NAME
from costmodel.errors import InputError

MAX_LINES = 50_000
DEEPEST = 8
"""Calls within calls that are written out."""
LONGEST_LOOP_LINE = 2_000
"""Characters."""
_HEAD = rf"(?:function\s+(?P<name>{NAME})\s*(?:\(\s*\))?|(?P<plain>{NAME})\s*\(\s*\))\s*"
_FUNCTION = re.compile(rf"^{_HEAD}\{{$")
_FUNCTION_BELOW = re.compile(rf"^{_HEAD}$")
_FUNCTION_LINE = re.compile(rf"^(?P<head>{_HEAD})\{{\s(?P<body>.*?[;&])\s*\}}\s*(?:[;&]\s*(?P<rest>.*))?$")
_ONE_LINE_LOOP = re.compile(r"^(?P<head>(?:for|while|until)\b.*?;\s*do)\s+(?P<body>.*);\s*(?P<end>done\b.*)$")
_CLOSED = re.compile(r"^\}(?:$|[\s;&)])")
_OPENED = re.compile(r"(?:^|[\s;&|)])\{$")
_SHIFT = re.compile(r"^shift(?:\s+(?P<by>\d{1,3}))?$")
_ARGUMENT = re.compile(
    r"(?P<quoted>\")?\$(?:\{(?P<all>[@*])(?::(?P<first>\d))?\}|(?P<plain_all>[@*])|"
    r"(?P<count>#)|\{(?P<braced>[1-9]\d?)(?P<more>:?[-=?][^{}]*)?\}|(?P<plain>[1-9]))(?P<end>\")?"
)
_LEADING = ("if", "elif", "while", "until", "!", "time", "(", "{", "then", "else", "do")
_ENDS = ("&", "&&", "||", "|", ";", ")", "}")
_PREFIX = re.compile(rf"^{NAME}=")


def written_out(lines: Sequence[str]) -> list[str]:
    """Logical lines of a script with the bodies of its functions in place of their calls.

    `$1`, `$@`, `$#` and `shift` are those of the call. A function that nothing calls stands where it is defined, as
    `xargs` or a trap may call it.

    Raises:
        InputError: more than `MAX_LINES` lines come of it.
    """
    main, functions = _taken_out(_one_command_each(lines))
    if not functions:
        return [line for line, _ in main]
    bodies = (*functions.values(), [line for line, _ in main])
    called = {call.name for body in bodies for call in _calls(body, functions)}
    script = _Script(functions=functions)
    for line, defined in main:
        if defined is None:
            script.take(line)
        elif defined not in called:
            for inner in functions[defined]:
                script.take(inner)
    return script.lines


def _one_command_each(lines: Sequence[str]) -> list[str]:
    """Lines with one command each, functions that are defined on a line included."""
    out = list[str]()
    for line in lines:
        rest: str | None = line
        while rest is not None and (found := _FUNCTION_LINE.match(rest.strip())) is not None:
            out += [f"{found['head']}{{", *commands_of(found["body"].rstrip(";")), "}"]
            rest = found["rest"]
        if (rest or "").strip() == "{" and out and _FUNCTION_BELOW.match(out[-1].strip()):
            out[-1] = f"{out[-1].strip()} {{"
        elif rest is not None:
            out += commands_of(rest)
    return out


@dataclass(slots=True)
class _Open:
    """A function whose end has not come, or the script."""

    name: str
    head: str
    body: list[tuple[str, str | None]] = field(default_factory=list)
    """Lines, with its name for each that stands for a function."""
    braces: int = 0


def _taken_out(lines: Sequence[str]) -> tuple[list[tuple[str, str | None]], dict[str, list[str]]]:
    """The lines outside of functions, among them one with its name for each function; and the bodies by name."""
    functions: dict[str, list[str]] = {}
    open_ = [_Open("", "")]
    for line in lines:
        stripped = line.strip()
        found, closes = _FUNCTION.match(stripped), _CLOSED.match(stripped) is not None
        here = open_[-1]
        if found is not None:
            open_.append(_Open(found["name"] or found["plain"], line))
        elif closes and not here.braces and len(open_) > 1:
            functions[here.name] = [inner for inner, defined in here.body if defined is None]
            open_.pop()
            open_[-1].body.append((here.head, here.name))
        else:
            here.braces = max(here.braces + (_OPENED.search(stripped) is not None) - closes, 0)
            here.body.append((line, None))
    main = open_[0].body
    for lost in open_[1:]:  # no end came: no function
        main += [(lost.head, None), *lost.body]
    return main, functions


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    prefix: tuple[str, ...]
    """Variables that are set for it."""
    words: tuple[str, ...]


def _loop(line: str) -> re.Match[str] | None:
    """A loop that stands on one line; None: it is none, or too long to be one that somebody wrote."""
    return _ONE_LINE_LOOP.match(line.strip()) if len(line) < LONGEST_LOOP_LINE else None


def _calls(lines: Sequence[str], functions: Mapping[str, list[str]]) -> Iterator[_Call]:
    for line in lines:
        loop = _loop(line)
        inner = [line] if loop is None else commands_of(loop["body"])
        yield from (call for part in inner if (call := _call(part, functions)) is not None)


def _call(line: str, functions: Mapping[str, list[str]]) -> _Call | None:
    """The call of a function that a line begins with, behind words of conditions and variables; None: there is none."""
    if functions.keys().isdisjoint(re.findall(NAME, line)):
        return None
    words = words_of(line.strip().lstrip("("))
    while words and words[0] in _LEADING:
        words.pop(0)
    prefix = list[str]()
    while words and _PREFIX.match(words[0]):
        prefix.append(words.pop(0))
    if not words or (name := words[0].rstrip(";)&")) not in functions:
        return None
    given = list[str]()
    for word in words[1:] if name == words[0] else ():
        if word in _ENDS or re.match(r"\d?[<>]|&>", word):
            break
        given.append(word.rstrip(";") if word.endswith(";") else word)
        if word.endswith(";"):
            break
    if given and line.strip().startswith("("):
        given[-1] = given[-1].rstrip(")")
    return _Call(name=name, prefix=tuple(prefix), words=tuple(given))


@dataclass(slots=True)
class _Script:
    """Lines as they are written out."""

    functions: Mapping[str, list[str]]
    lines: list[str] = field(default_factory=list)
    calls: int = 0

    def take(self, line: str, within: tuple[str, ...] = ()) -> None:
        """Write a line, or the body of the function that it calls; `within`: the functions whose bodies it is in.

        One that calls itself tries again what it did: its call stays as it stands.
        """
        if len(self.lines) > MAX_LINES:
            raise InputError.single("SCRIPT", f"must be at most {MAX_LINES:,} lines, its functions written out")
        loop = _loop(line)
        if loop is not None and list(_calls([line], self.functions)):
            for part in (loop["head"], *commands_of(loop["body"]), loop["end"]):
                self.take(part, within)
            return
        call = _call(line, self.functions)
        if call is None or call.name in within or len(within) >= DEEPEST:
            self.lines.append(line)
            return
        self.calls += 1
        name = f"call_{self.calls}_word"
        self.lines += [*call.prefix, *(f"{name}_{i}={word}" for i, word in enumerate(call.words, start=1))]
        shifted = 0
        for inner in self.functions[call.name]:
            found = _SHIFT.match(inner.strip())
            if found is not None:
                shifted += int(found["by"] or 1)
            else:
                self.take(_with_words(inner, name, call.words, shifted), (*within, call.name))
        if line.strip().startswith(("if ", "elif ", "while ", "until ")):
            self.lines.append(line)


def _with_words(line: str, name: str, words: Sequence[str], shifted: int) -> str:
    """A line of a body with what it was called with: variables for single words, and all words as they are written."""
    out, last, quote, escaped, at, room = list[str](), 0, "", False, 0, MAX_WRITTEN
    rest = words[shifted:]
    for found in _ARGUMENT.finditer(line):
        while at < found.start():
            quote, escaped = after(line[at], quote, escaped)
            at += 1
        dollar = found.start() + (found["quoted"] is not None)
        if quote == "'" or escaped or (dollar and line[dollar - 1] == "\\"):
            continue
        quotes = found["quoted"] or "", found["end"] or ""
        number = found["braced"] or found["plain"]
        if number is not None:
            place = int(number) + shifted
            known = f"${{{name}_{place}{found['more'] or ''}}}" if place <= len(words) else _lacking(found["more"])
            text = f"{quotes[0]}{known}{quotes[1]}"
        elif found["count"] is not None:
            text = f"{quotes[0]}{len(rest)}{quotes[1]}"
        else:
            text = " ".join(rest[int(found["first"] or 1) - 1 :])
        room -= len(text)
        if room < 0:
            break
        out += [line[last : found.start()], text]
        last = found.end()
    return "".join((*out, line[last:]))


def _lacking(more: str | None) -> str:
    """What stands for a word that the call lacks: nothing, or what is to be taken then."""
    return "" if more is None or "?" in more[:2] else more.lstrip(":")[1:]
