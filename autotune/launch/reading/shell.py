"""Shell scripts without running them: comments, variables, arithmetic, arrays, loops, files written in place.

Only what is known without running anything is expanded; the rest stays as it stands.
"""

from __future__ import annotations

import re
import shlex
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.launch.reading.functions import written_out
from autotune.launch.reading.quotes import after, quote_after
from autotune.launch.reading.units import JOBS, variables_of_job
from autotune.launch.reading.variables import MAX_VALUE, NAME, arithmetic, expand, expanded_words, summed, take_defaults

MAX_LOOP = 100_000
LONGEST_LOOP = 60
"""Lines of a loop that are looked through for what ends its servers."""
DEEPEST = 20
"""Conditions within conditions that are told apart."""
_ASSIGNMENT = re.compile(
    rf"(?:(?:export|readonly|local|declare)\s+(?:-\w+\s+)?)?(?P<name>{NAME})(?P<more>\+?)=(?P<value>.*)$",
    re.DOTALL,
)
_ARRAY = re.compile(rf"^\s*(?:\w+\s+)*{NAME}\+?=\(")
_HEREDOC = re.compile(r"<<-?\s*(?P<quote>['\"]?)(?P<word>\w+)(?P=quote)")
_WRITTEN = re.compile(r"(?:>\s*|\btee\s+)(?P<file>[^\s<>|&;]+)")
_ENDS = re.compile(r"^\s*(?:sudo )?(?:kill|pkill|killall|(?:docker|podman) (?:stop|kill|rm))\b")
_FOR = re.compile(rf"^for\s+(?P<name>{NAME})\s+in\s+(?P<items>.*?)\s*(?:;\s*do\b.*)?$")
_FOR_SUM = re.compile(r"^for\s*\(\(\s*\w+\s*=\s*(?P<low>\d+)\s*;\s*\w+\s*(?P<how><=?)\s*(?P<high>[^;]+);")


Branches = Mapping[int, int]
"""Conditions that a line stands in -> which of their branches."""


@dataclass(frozen=True, slots=True)
class Line:
    """A logical line, expanded."""

    text: str
    times: int
    """How often it is run."""
    branches: Branches


@dataclass(slots=True)
class Script:
    """What a script says, line by line."""

    lines: list[Line] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    """Variables at its end."""
    files: dict[str, str] = field(default_factory=dict)
    """Name of each file that it writes in place -> content."""


def read_script(text: str, given: Mapping[str, str]) -> Script:
    """Read a script; `given` are variables that hold whatever it sets."""
    script = Script(env={**variables_of_job(text), **given})
    return _read(written_out(_logical_lines(text, script)), script, given)


def _read(lines: list[str], script: Script, given: Mapping[str, str]) -> Script:
    """Read logical lines, without functions, into `script`."""
    times: list[int] = [int(script.env.get(JOBS, "1"))]
    conditions = _Conditions()
    ends = [at for at, line in enumerate(lines) if _ENDS.match(line)]
    for at, line in enumerate(lines):
        stripped = line.strip()
        conditions.meet(stripped)
        loop = _loop(stripped, script.env)
        if loop is not None:
            after = bisect_left(ends, at)
            last = ends[after] if after < len(ends) else at + LONGEST_LOOP
            if loop > 1 and last < at + LONGEST_LOOP and _ends_its_servers(lines[at : last + 1]):
                loop = 1
            times.append(min(times[-1] * loop, MAX_LOOP))
            if not re.search(r";\s*done\b", stripped):
                _, do, rest = stripped.partition("; do ")
                stripped = rest.strip() if do else ""
                if not stripped:
                    continue
        if stripped == "done" or stripped.startswith(("done ", "done;", "done&")):
            if len(times) > 1:
                times.pop()
            continue
        take_defaults(stripped, script.env)
        if _assigned(stripped, script.env, given):
            continue
        script.lines.append(Line(expanded_words(stripped, script.env), times[-1], conditions.now()))
        if loop is not None and re.search(r";\s*done\b", stripped):
            times.pop()
    return script


def _ends_its_servers(lines: list[str]) -> bool:
    """Whether a loop, which begins with the first line, ends what it starts: such servers run one after the other."""
    depth = 0
    for line in lines:
        depth += _FOR.match(line.strip()) is not None or line.strip().startswith(
            ("for ((", "for((", "while ", "until ")
        )
        if depth and _ENDS.match(line):
            return True
        depth -= re.search(r"(?:^|;)\s*done\b", line) is not None
        if depth <= 0:
            return False
    return False


class _Conditions:
    """The conditions that lines stand in."""

    def __init__(self) -> None:
        self._open: list[tuple[int, int]] = []
        self._met = 0

    def meet(self, line: str) -> None:
        """Take a line that may begin, end or turn one."""
        word = re.split(r"[\s;]", line, maxsplit=1)[0]
        if word in ("if", "case") and not re.search(r"[\s;](fi|esac)$", line):
            self._met += 1
            self._open.append((self._met, 0))
        elif word in ("fi", "esac") and self._open:
            self._open.pop()
        elif self._open and (word in ("else", "elif") or re.match(r"^[^\s()]+\)", line)):
            condition, branch = self._open[-1]
            self._open[-1] = (condition, branch + 1)

    def now(self) -> Branches:
        """The innermost ones that are open."""
        return dict(self._open[-DEEPEST:])


def without_comments(text: str) -> str:
    """A script without what follows a `#` that begins a word outside of quotes."""
    if "#" not in text:
        return text
    out, quote, escaped, begins = [], "", False, True
    skipping = False
    for c in text:
        if skipping:
            if c != "\n":
                continue
            skipping = False
        elif not quote and not escaped and c == "#" and begins:
            skipping = True
            continue
        out.append(c)
        quote, escaped = after(c, quote, escaped)
        begins = c.isspace() or c in ";&|("
    return "".join(out)


def _assigned(line: str, env: dict[str, str], given: Mapping[str, str]) -> bool:
    """Take `A=1`, `export A=1 B=2`, `A+=" more"` or `A=(a b)` into the variables; whether it was nothing else."""
    found = _ASSIGNMENT.match(line)
    if found is None:
        return False
    value = summed(found["value"], env)
    name = found["name"]
    if value.startswith("("):
        held = " ".join(expanded_words(value.strip(" \t;")[1:].removesuffix(")"), env).split("\n"))
    else:
        parts = _parts(value)
        if parts is None:
            return False
        for other in parts[1:]:
            more = re.fullmatch(rf"({NAME})=(.*)", other, re.DOTALL)
            if more is None:
                return False  # `A=1 command`
            env[more[1]] = given.get(more[1], expand(more[2], env)[:MAX_VALUE])
        held = expand(parts[0], env) if parts else ""
        if re.fullmatch(r"\$\(.*\)|`.*`", held):
            held = env.get(name, held)
    before = env.get(name, "") if found["more"] else ""
    joined = f"{before} {held}" if found["more"] and value.startswith("(") else before + held
    if name not in given:
        env[name] = joined[:MAX_VALUE]
    return True


def _parts(text: str) -> list[str] | None:
    try:
        return shlex.split(text.rstrip("; \t"))
    except ValueError:
        return None


def _logical_lines(text: str, script: Script) -> list[str]:
    """Lines joined where they or a quotation go on, without files that are written in place, which are kept."""
    out: list[str] = []
    waiting, pending, body = "", "", list[str]()
    target, literal, quote = None, False, ""
    for raw in without_comments(text.replace("\r\n", "\n")).split("\n"):
        if waiting:
            if raw.strip() == waiting:
                if target is not None:
                    content = "\n".join(body)
                    script.files[target] = content if literal else expand(content, script.env)
                waiting, body = "", []
            else:
                body.append(raw)
            continue
        line = pending + raw
        quote = quote_after(raw, quote)
        if line.endswith("\\"):
            pending = line[:-1] + " "
            continue
        heredoc = None if quote else _HEREDOC.search(raw)
        if quote and heredoc is None and len(line) < MAX_VALUE:
            pending = line + "\n"
            continue
        quote = ""
        if _ARRAY.match(line) and line.count("(") > line.count(")") and len(line) < MAX_VALUE:
            pending = line + " "
            continue
        pending = ""
        if heredoc is not None:
            waiting, literal = heredoc["word"], bool(heredoc["quote"])
            written = _WRITTEN.search(line)
            target = None if written is None else expand(written["file"].strip("'\""), script.env).rpartition("/")[2]
            continue
        if line.strip():
            out.append(line)
    return [*out, pending] if pending.strip() else out


def _loop(line: str, env: Mapping[str, str]) -> int | None:
    """How often a loop runs that a line begins; None: it begins none."""
    counted = _FOR_SUM.match(line)
    if counted is not None:
        high = arithmetic(counted["high"], env)
        return 1 if high is None else max(min(high - int(counted["low"]) + (counted["how"] == "<="), MAX_LOOP), 0)
    found = _FOR.match(line)
    if found is None:
        return 1 if line.startswith(("while ", "until ")) else None
    items = expand(found["items"], env)
    bounds = re.fullmatch(r"\{(\d{1,6})\.\.(\d{1,6})\}", items) or re.fullmatch(r"\$\(seq (\d{1,6}) (\d{1,6})\)", items)
    if bounds is not None:
        return max(int(bounds[2]) - int(bounds[1]) + 1, 0)
    one = re.fullmatch(r"\$\(seq (\d{1,6})\)", items)
    if one is not None:
        return int(one[1])
    return 1 if "$" in items else max(len(items.split()), 1)
