"""A server's command line, read back: which engine, which options, which of them its version does not know."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.launch.engines.options import Option, OptionList, choose_version
from costmodel.errors import InputError

MAX_COMMAND = 100_000
ENVIRONMENT = ("VLLM_PP_LAYER_PARTITION", "SGLANG_PP_LAYER_PARTITION")
"""Variables that decide about the layout."""
_ASSIGN = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$", re.DOTALL)
_SHELLS = ("sh", "bash", "dash", "zsh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command that starts a server's process."""

    engine: str
    options: OptionList
    model: str | None
    values: Mapping[str, Any]
    """Option -> text, list of texts, or a truth value; only what was said."""
    env: Mapping[str, str]
    unknown: tuple[str, ...]
    """What this version does not know, as it was written."""
    assumptions: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    """Options as they are met."""

    values: dict[str, Any] = field(default_factory=dict)
    positional: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def split_command(text: str) -> list[str]:
    """Words of a command as a POSIX shell splits them, without running anything.

    Raises:
        InputError: longer than `MAX_COMMAND` characters, or a quotation is not closed.
    """
    if len(text) > MAX_COMMAND:
        raise InputError.single("COMMAND", f"must be at most {MAX_COMMAND:,} characters, got {len(text):,}")
    try:
        return shlex.split(text.replace("\\\n", " "), comments=False, posix=True)
    except ValueError as error:
        raise InputError.single("COMMAND", f"cannot be split into words: {error}") from error


def find_engine(words: Sequence[str]) -> tuple[str, int] | None:
    """Engine of a command and the place of its first argument; None where it starts no server."""
    for i, word in enumerate(words):
        name = word.rpartition("/")[2]
        following = words[i + 1] if i + 1 < len(words) else ""
        if name == "vllm" and following == "serve":
            return "vllm", i + 2
        if name in ("vllm.entrypoints.openai.api_server", "dynamo.vllm"):
            return "vllm", i + 1
        if name == "sglang.launch_server" or (name == "sglang" and following == "serve"):
            return "sglang", i + (1 if name == "sglang.launch_server" else 2)
        if name == "trtllm-serve":
            return "trtllm", i + (2 if following == "serve" else 1)
    return None


def parse_command(words: Sequence[str], *, env: Mapping[str, str] | None = None, version: str | None = None) -> Command:
    """Read a command line.

    Args:
        words: of the command, with what stands before the engine (`exec`, `FOO=1`, `mpirun …`, `sh -c …`).
        env: variables set elsewhere.
        version: of the engine that runs; None: the newest whose options are known.

    Raises:
        InputError: no server is started, or the version's options are not known.
    """
    inner = _inner(words)
    if inner is not None:
        return parse_command(inner, env=env, version=version)
    found = find_engine(words)
    if found is None:
        raise InputError.single(
            "COMMAND", f"must start vllm serve, sglang.launch_server or trtllm-serve, got {' '.join(words)[:120]!r}"
        )
    engine, start = found
    options, assumed = choose_version(engine, version)
    variables = dict(env or {})
    variables.update((m[1], m[2]) for w in words[:start] if (m := _ASSIGN.match(w)))
    read = _Reading()
    _read(words[start:], options, variables, read)
    named = read.values.get("model") or read.values.get("model_path")
    model = named if isinstance(named, str) else None
    if model is None and read.positional and engine != "sglang":
        model = read.positional.pop(0)
    read.unknown += read.positional
    return Command(
        engine=engine,
        options=options,
        model=model,
        values=read.values,
        env={k: v for k, v in variables.items() if k in ENVIRONMENT},
        unknown=tuple(read.unknown),
        assumptions=assumed,
    )


def _inner(words: Sequence[str]) -> list[str] | None:
    """What `sh -c TEXT` runs: the part of it that starts a server."""
    for i, word in enumerate(words[:-1]):
        runs = re.fullmatch(r"-[a-z]*c[a-z]*", word) is not None
        if runs and i and any(w.rpartition("/")[2] in _SHELLS for w in words[:i]):
            parts = re.split(r"&&|\|\||;|\n(?!\s*--)", words[i + 1].replace("\\\n", " "))
            for part in parts:
                inner = split_command(part)
                if find_engine(inner) is not None:
                    return inner
    return None


def _read(words: Sequence[str], options: OptionList, env: Mapping[str, str], read: _Reading) -> None:
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            read.positional += rest
            return
        if word in ("&", "|", ";", "&&", "||", ">", ">>", "2>", "2>&1", "&>"):
            return
        if not _is_flag(word):
            read.positional.append(_expand(word, env))
            continue
        flag, equals, attached = word.partition("=")
        option, path = _find(options, flag)
        if option is None:
            unknown = word
            if not equals and rest and not _is_flag(rest[0]):
                unknown = f"{word} {rest.pop(0)}"
            read.unknown.append(unknown)
            continue
        _take(option, flag, _expand(attached, env) if equals else None, path, rest, env, read)


def _take(
    option: Option,
    flag: str,
    attached: str | None,
    path: tuple[str, ...],
    rest: list[str],
    env: Mapping[str, str],
    read: _Reading,
) -> None:
    if option.kind == "flag" and not path:
        read.values[option.name] = flag not in option.off
        if attached is not None:
            read.values[option.name] = attached.lower() in ("true", "1", "yes")
        return
    if option.kind == "list" and attached is None:
        taken = []
        while rest and not _is_flag(rest[0]):
            taken.append(_expand(rest.pop(0), env))
        read.values[option.name] = taken
        return
    if attached is None and (not rest or (_is_flag(rest[0]) and not path)):
        if option.kind == "optional":
            read.values[option.name] = True
        else:
            read.unknown.append(f"{flag} (without a value)")
        return
    value = attached if attached is not None else _expand(rest.pop(0), env)
    if not path:
        read.values[option.name] = value
        return
    before = read.values.get(option.name)
    table = _table(before) if isinstance(before, str) else {}
    table[path[0]] = value
    read.values[option.name] = json.dumps(table)


def _table(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _find(options: OptionList, flag: str) -> tuple[Option | None, tuple[str, ...]]:
    """The option that a spelling means: itself, a field of it after a dot, or the one it is an abbreviation of."""
    option = options.find(flag)
    if option is not None:
        return option, ()
    stem, dot, path = flag.partition(".")
    if dot and options.engine == "vllm" and (option := options.find(stem)) is not None:
        return option, (path,)
    if not flag.startswith("--") or options.engine == "trtllm":
        return None, ()
    # argparse takes an abbreviation that only one option begins with; `--tp` for `--tp-size` is in every tutorial
    wanted = flag.replace("_", "-")
    near = {o.name for o in options.options.values() for f in (*o.flags, *o.off) if f.startswith(wanted)}
    return (options.options[near.pop()] if len(near) == 1 else None), ()


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and re.fullmatch(r"-\d+(\.\d+)?", word) is None


def _expand(text: str, env: Mapping[str, str]) -> str:
    """Text with the variables that are known; others stay as they are."""

    def known(match: re.Match[str]) -> str:
        name, default = match[1] or match[3], match[2]
        return env.get(name, match[0] if default is None else default)

    return re.sub(r"\$(?:\{([A-Za-z_]\w*)(?::-([^}]*))?\}|([A-Za-z_]\w*))", known, text)
