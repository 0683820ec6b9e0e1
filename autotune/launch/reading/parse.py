"""A server's command line, read back: which engine, which options, which of them its version does not know."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.engines import ENGINES, Engine, listed
from autotune.engines.dynamo import WORKERS_OWN_OPTIONS
from autotune.engines.option_reader import Command
from autotune.engines.options import Option, OptionList
from autotune.launch.reading.shell import without_comments
from autotune.launch.reading.variables import expand
from costmodel.errors import InputError

MAX_COMMAND = 100_000
_ASSIGN = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$", re.DOTALL)
_SHELLS = ("sh", "bash", "dash", "zsh")
_TRUTH = {"true": True, "false": False}
_BETWEEN = ("&", "&&", "||", ";")
_ENDS = (*_BETWEEN, "|", ">", ">>", "2>", "2>&1", "&>")
"""What ends a command in a shell."""
_CONTAINER = re.compile(r"\b(docker|podman|nerdctl)\b.*\brun\b")


def split_command(text: str) -> list[str]:
    """Words of a command as a POSIX shell splits them, without running anything.

    Raises:
        InputError: longer than `MAX_COMMAND` characters, or a quotation is not closed.
    """
    if len(text) > MAX_COMMAND:
        raise InputError.single("COMMAND", f"must be at most {MAX_COMMAND:,} characters, got {len(text):,}")
    try:
        return shlex.split(without_comments(text).replace("\\\n", " "), comments=False, posix=True)
    except ValueError as error:
        raise InputError.single("COMMAND", f"cannot be split into words: {error}") from error


def find_engine(words: Sequence[str]) -> tuple[Engine, int] | None:
    """Engine of a command and the place of its first argument; None where it starts no server."""
    # the longest way to write a program comes first: `trtllm-serve serve` is no `trtllm-serve` of a model `serve`
    programs = sorted(((p, e) for e in ENGINES.values() for p in e.programs), key=lambda found: -len(found[0]))
    for i, word in enumerate(words):
        for program, engine in programs:
            if (word.rpartition("/")[2], *words[i + 1 : i + len(program)]) == program:
                return engine, i + len(program)
    return None


def programs_in_words() -> str:
    """The usual commands of all engines, as a sentence lists them."""
    return listed([" ".join(engine.programs[0]) for engine in ENGINES.values()], "or")


def parse_command(words: Sequence[str], *, env: Mapping[str, str] | None = None, version: str | None = None) -> Command:
    """Read a command line.

    Args:
        words: of the command, with what stands before the engine (`exec`, `FOO=1`, `mpirun …`).
        env: variables set elsewhere.
        version: of the engine that runs; None: the newest whose options are known.

    Raises:
        InputError: no server is started, or the version's options are not known.
    """
    found = find_engine(words)
    if found is None:
        raise InputError.single("COMMAND", f"must start {programs_in_words()}, got {' '.join(words)[:120]!r}")
    engine, start = found
    variables = dict(env or {})
    variables.update((m[1], m[2]) for w in words[:start] if (m := _ASSIGN.match(w)))
    read, assumed = _read_options(engine, version, variables, words[start:])
    named = read.values.get("model") or read.values.get("model_path")
    model = named if isinstance(named, str) else None
    if model is None and read.positional and engine.model_is_positional:
        model = read.positional.pop(0)
    return Command(
        engine=engine.name,
        options=read.options,
        model=model,
        values=read.values,
        env=variables,
        unknown=(*read.unknown, *([" ".join(read.positional)] if read.positional else ())),
        assumptions=assumed,
        turned_off=read.turned_off,
        own=tuple(read.own),
    )


def _read_options(
    engine: Engine, version: str | None, env: Mapping[str, str], words: Sequence[str]
) -> tuple[_Reading, tuple[str, ...]]:
    """A command's options and what is assumed of the version: where none is given, the newest that knows most of them.

    No version starts with an option that it does not know.
    """
    options, assumed = engine.choose_version(version)
    newest = best = _Reading.of(engine, options, env, words)
    for older in engine.versions()[1:] if version is None else ():
        if not best.unknown:
            break
        read = _Reading.of(engine, engine.options(older), env, words)
        best = read if len(read.unknown) < len(best.unknown) else best
    if best is newest:
        return best, assumed
    only = next((text for text in newest.unknown if text not in best.unknown), newest.unknown[0]).partition("=")[0]
    named = f"{engine.name} {best.options.version}, the newest that knows {only.split()[0]}"
    return best, (f"engine version not given: {named}, which {options.version} does not",)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldsRead:
    """What the fields of an engine's configuration file say."""

    values: Mapping[str, Any]
    """As `Command.values`."""
    turned_off: Mapping[str, str]
    """As `Command.turned_off`."""
    unknown: tuple[str, ...]
    """Those that mean nothing to the version."""


def read_fields(engine: Engine, options: OptionList, table: Mapping[Any, Any]) -> FieldsRead:
    """A configuration file whose fields are the options of the command line.

    Each is read as its parser reads the file (vLLM, utils/argparse_utils.py:load_config_file; SGLang,
    server_args_config_parser.py): as the option of that name on the command line.
    """
    read = _Reading(engine=engine, options=options, env={}, rest=[])
    unknown = []
    for key, value in table.items():
        if value is None:
            continue
        if key in ("model", "model_tag") and engine.model_is_positional:
            read.values["model"] = str(value)
            continue
        met = len(read.unknown) + len(read.positional)
        read.rest = _words_of_field(str(key), value)
        read.everything()
        unknown += [str(key)] if len(read.unknown) + len(read.positional) > met else []
    return FieldsRead(values=read.values, turned_off=read.turned_off, unknown=tuple(unknown))


def _words_of_field(key: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    if isinstance(value, Mapping | bool):
        return [f"--{key}={json.dumps(value, default=str)}"]
    return [f"--{key}={value}"]


def inner_script(words: Sequence[str]) -> str | None:
    """The script in a command, as of `sh -c SCRIPT`, `ssh HOST SCRIPT` or `tmux new SCRIPT`; None: there is none."""
    for i, word in enumerate(words[:-1]):
        runs = re.fullmatch(r"-[a-z]*c[a-z]*", word) is not None
        if runs and i and any(w.rpartition("/")[2] in _SHELLS for w in words[:i]):
            rest = [w for w in words[i + 1 :] if w != "--"]
            return _by_line(rest[0]) if rest else None
    if find_engine(words) is not None:
        return None
    return next((_by_line(word) for word in words[1:] if re.search(r"\s", word) and starts_something(word)), None)


def starts_something(text: str) -> bool:
    """Whether a text may start a server, in a container or by itself."""
    return _CONTAINER.search(text) is not None or find_engine(text.replace("\\\n", " ").split()) is not None


def _by_line(text: str) -> str:
    """A script with one command per line."""
    return re.sub(r"(?:&&|;)(?=\s)", "\n", re.sub(r"\n(?=\s*--)", " ", text.replace("\\\n", " ")))


def parts_of(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands of one line, which `&`, `&&`, `||` or `;` part."""
    part: list[str] = []
    for word in words:
        if word in _BETWEEN:
            yield part
            part = []
        elif word.endswith(";"):
            yield [*part, word[:-1]]
            part = []
        else:
            part.append(word)
    yield part


@dataclass(slots=True, kw_only=True)
class _Reading:
    """Options as they are met."""

    engine: Engine
    options: OptionList
    env: Mapping[str, str]
    rest: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    positional: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    turned_off: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, engine: Engine, options: OptionList, env: Mapping[str, str], words: Sequence[str]) -> _Reading:
        """The words of a command, read."""
        read = cls(engine=engine, options=options, env=env, rest=list(words))
        read.everything()
        return read

    def everything(self) -> None:
        """Read all words, up to the end of the command."""
        while self.rest and self.rest[0] not in _ENDS:
            word = self.rest.pop(0)
            if word == "--":
                self.positional += self.rest
                return
            if not _is_flag(word):
                self.positional.append(expand(word, self.env))
                continue
            flag, equals, attached = re.sub(r"^-O(?=\d$)", "-O=", word).partition("=")
            option, key = self._find(flag)
            if option is None:
                follows = [self.rest.pop(0)] if not equals and self._value_follows() else []
                if flag == "--model-path" and self.engine.model_is_positional:  # as Dynamo's workers are told
                    self.positional.append(expand(attached if equals else "".join(follows), self.env))
                    continue
                own = flag.startswith(WORKERS_OWN_OPTIONS)
                (self.own if own else self.unknown).append(" ".join((word, *follows)))
            else:
                self._take(option, flag, expand(attached, self.env) if equals else None, key)

    def _value_follows(self) -> bool:
        return bool(self.rest) and not _is_flag(self.rest[0]) and self.rest[0] not in _ENDS

    def _next(self) -> str:
        return expand(self.rest.pop(0), self.env)

    def _find(self, flag: str) -> tuple[Option | None, str | None]:
        """The option that a spelling means (itself, or the one it is an abbreviation of), and the key after its dot."""
        flag = self.engine.other_spellings.get(flag, flag)
        option = self.options.find(flag)
        if option is not None:
            return option, None
        if flag.startswith("--no-") and (option := self.options.find(f"--{flag[5:]}")) and option.kind == "flag":
            return option, None
        stem, dot, key = flag.partition(".")
        if dot and self.engine.dotted_options and (option := self.options.find(stem)) is not None:
            return option, key
        if not flag.startswith("--") or not self.engine.abbreviations:
            return None, None
        # argparse takes an abbreviation that only one option begins with; `--tp` for `--tp-size` is in every tutorial
        wanted = flag.replace("_", "-")
        near = {name for spelling, name in self.options.spellings.items() if spelling.startswith(wanted)}
        return (self.options.options[near.pop()] if len(near) == 1 else None), None

    def _take(self, option: Option, flag: str, attached: str | None, key: str | None) -> None:
        if option.kind == "flag" and key is None:
            if attached is None and self.rest and self.rest[0].lower() in _TRUTH:
                attached = self.rest.pop(0)
            on = attached is None or attached.lower() in ("true", "1", "yes")
            turns_off = flag in option.off or (flag.startswith("--no-") and flag not in option.flags)
            self.values[option.name] = on != turns_off
            if on == turns_off:
                self.turned_off[option.name] = flag if on else f"{flag}={attached}"
        elif option.kind == "list" and attached is None:
            taken = self.values[option.name] = list[str]()
            while self._value_follows():
                taken.append(self._next())
        elif attached is None and not (self.rest if key is not None else self._value_follows()):
            if option.kind == "optional":
                self.values[option.name] = True
            else:
                self.unknown.append(f"{flag} (without a value)")
        else:
            value = self._next() if attached is None else attached
            self.values[option.name] = value if key is None else self._with_key(option.name, key, value)

    def _with_key(self, name: str, key: str, value: str) -> str:
        """The JSON object that an option has so far, with one key more."""
        try:
            table = json.loads(str(self.values.get(name, "{}")))
        except (ValueError, RecursionError):
            table = {}
        return json.dumps((table if isinstance(table, dict) else {}) | {key: value})


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and re.fullmatch(r"-\d+(\.\d+)?", word) is None


def plain_words(value: Any) -> list[str]:
    """The words, as the process gets them: Compose and Kubernetes take `$$` for a dollar sign."""
    if isinstance(value, str):
        return split_command(value.replace("$$", "$"))
    if isinstance(value, list):
        return [plain_text(item) for item in value if not isinstance(item, list | dict)]
    return []


def plain_text(value: Any) -> str:
    """One of them."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("$$", "$")
