"""The options that an engine's server knows, per version, as data; a command line is checked against them.

`NAME-VERSION.toml` in the engine's folder of lists holds what the engine's own parser registers, with where it was
read; NAME is the engine, or a program of its makers such as its benchmark. An option whose meaning differs between
engines or versions carries a `meaning`, which whoever writes the option has to name: so that `--dp-size` of a version
where it means replicas is never written for attention data parallelism.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from costmodel.errors import InputError

DATA = Path(__file__).with_name("options_data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a server's command line."""

    name: str
    """Of the value in the engine's own arguments."""
    flags: tuple[str, ...]
    """Spellings; the first is the one to write."""
    off: tuple[str, ...]
    """Spellings that turn a flag off."""
    kind: str
    """`value`, `flag` (takes none), `list` (takes any number) or `optional` (takes one or none)."""
    default: str | int | float | bool | None
    """None: not said by the parser; the engine chooses when it starts."""
    choices: tuple[str, ...]
    """Empty: any."""
    meaning: str | None
    deprecated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionList:
    """All options of one engine and version."""

    engine: str
    version: str
    command: str
    """What stands before the options."""
    source: str
    """Where the list was read."""
    options: Mapping[str, Option]
    fields: Mapping[str, Option]
    """Of the configuration file, where the engine has one; dots for fields of fields."""
    spellings: Mapping[str, str]
    """Every spelling of every option -> its name."""
    server_defaults: tuple[tuple[int, Mapping[str, int]], ...] = ()
    """Least GPU memory, GiB -> what a server takes where an option has no default, ascending."""
    gpu_defaults: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Part of a GPU's name -> the same where it does not go by the memory."""
    backend_defaults: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Backend of the exchange with experts -> the same, whatever the GPU."""

    def default(
        self, name: str, *, gpu_gib: float, gpu_name: str = "", backend: str | None = None
    ) -> str | int | float | bool | None:
        """What an option is where nobody says; None: the engine finds it when it starts.

        `backend` is that of the exchange with experts, where there is one.
        """
        known = [table for least, table in self.server_defaults if least <= gpu_gib and name in table]
        known += [table for part, table in self.gpu_defaults.items() if part in gpu_name.lower() and name in table]
        known += [table for part, table in self.backend_defaults.items() if part == backend and name in table]
        option = self.options.get(name)
        return known[-1][name] if known else None if option is None else option.default

    def find(self, flag: str) -> Option | None:
        """The option that a spelling names; underscores stand for hyphens, as the engines' parsers take them."""
        name = self.spellings.get(flag) or self.spellings.get(_hyphens(flag))
        return None if name is None else self.options[name]

    def require(self, name: str, *, meaning: str | None = None, in_file: bool = False) -> Option:
        """An option by the engine's own name for it.

        Raises:
            InputError: this version has no such option, deprecates it, or means something else by it.
        """
        option = (self.fields if in_file else self.options).get(name)
        where = f"{self.engine} {self.version}"
        if option is None:
            kind = "field of the LLM API" if in_file else "option"
            raise InputError.single("--engine-version", f"{where} has no {kind} `{name}` ({self.source})")
        if option.deprecated:
            raise InputError.single("--engine-version", f"{where} deprecates {option.flags[0]} ({self.source})")
        if meaning is not None and option.meaning != meaning:
            raise InputError.single(
                "--engine-version",
                f"{option.flags[0]} of {where} means {option.meaning or 'something else'}, not {meaning}",
            )
        return option


def versions(name: str, folder: Path = DATA) -> tuple[str, ...]:
    """Versions of a program whose options are known, newest first."""
    found = [f.name.removesuffix(".toml").partition("-")[2] for f in folder.iterdir() if f.name.startswith(f"{name}-")]
    return tuple(sorted(found, key=version_key, reverse=True))


def version_key(version: str) -> tuple[int, ...]:
    """The numbers of a version, for ordering; what follows them (`.post1`, `rc2`) is left out."""
    numbers = []
    for part in version.strip().removeprefix("v").split("."):
        if not part.isdigit() or len(part) > 9:
            break
        numbers.append(int(part))
    return tuple(numbers)


def choose_version(name: str, asked: str | None, folder: Path = DATA) -> tuple[OptionList, tuple[str, ...]]:
    """The option list for a version, and what had to be assumed: that of the nearest older version that is known.

    Raises:
        InputError: not a version, or older than every version whose options are known.
    """
    known = versions(name, folder)
    if asked is None:
        return option_list(name, known[0], folder), (
            f"engine version not given: {name} {known[0]}, the newest whose options are known",
        )
    key = version_key(asked)
    fitting = [v for v in known if version_key(v) <= key]
    if not key or not fitting:
        raise InputError.single(
            "--engine-version",
            f"must be {name} {known[-1]} or newer (options are known of {', '.join(known)}), got {asked!r}",
        )
    options = option_list(name, fitting[0], folder)
    if version_key(fitting[0]) == key:
        return options, ()
    return options, (f"{name} {asked}: options checked against {name} {fitting[0]}, the nearest older one known",)


@lru_cache(maxsize=16)
def option_list(name: str, version: str, folder: Path = DATA) -> OptionList:
    """The options of one program and version that stand in the data.

    Raises:
        FileNotFoundError: there is no such file (see `versions`).
    """
    table = tomllib.loads((folder / f"{name}-{version}.toml").read_text(encoding="utf-8"))
    options = {name: _option(name, entry) for name, entry in table["options"].items()}
    spelt = [(flag, o.name) for o in options.values() for flag in (*o.flags, *o.off)]
    return OptionList(
        engine=table["engine"],
        version=table["version"],
        command=table["command"],
        source=table["source"],
        options=options,
        fields={name: _option(name, entry) for name, entry in table.get("fields", {}).items()},
        spellings={_hyphens(flag): name for flag, name in spelt} | dict(spelt),
        gpu_defaults=table.get("gpu_defaults", {}),
        backend_defaults=table.get("backend_defaults", {}),
        server_defaults=tuple(sorted((int(k), v) for k, v in table.get("server_defaults", {}).items())),
    )


def flat_fields(table: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Tables within tables as one, names joined by dots."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out |= flat_fields(value, f"{name}.")
        elif isinstance(value, list):
            out[name] = ",".join(map(str, value))
        elif value is not None:
            out[name] = value if isinstance(value, bool) else str(value)
    return out


def _option(name: str, entry: Mapping[str, object]) -> Option:
    def strings(key: str) -> tuple[str, ...]:
        value = entry.get(key, ())
        return tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()

    default = entry.get("default")
    return Option(
        name=name,
        flags=strings("flags") or (name,),
        off=strings("off"),
        kind=str(entry.get("kind", "value")),
        default=default if isinstance(default, (str, int, float, bool)) else None,
        choices=strings("choices"),
        meaning=None if entry.get("meaning") is None else str(entry["meaning"]),
        deprecated=bool(entry.get("deprecated", False)),
    )


def _hyphens(flag: str) -> str:
    return "--" + flag[2:].replace("_", "-") if flag.startswith("--") else flag
