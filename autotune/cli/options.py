"""Options and arguments that the commands share, and the exit codes. Imports click alone: `--help` is immediate."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

if TYPE_CHECKING:
    from autotune.study import Study
    from autotune.traffic.options import ReadOptions

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_INPUT = 2
EXIT_INFEASIBLE = 3
EXIT_REFUSED = 4
EXIT_INTERRUPTED = 130


class NewFile(click.Path):
    """The path of a file that a command writes: its folder is there, as a slip in it would make a folder by its name.

    Folders that are asked for (`--out DIR`, `--state`) are made.
    """

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as it was given, before anything is computed that could not be written."""
        path = os.fsdecode(super().convert(value, param, ctx))
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            from costmodel.errors import InputError

            name = "--out" if param is None else param.opts[-1]
            raise InputError.single(name, f"must lie in a folder that exists, got {path}: there is no {folder}")
        return path


_STUDY = click.argument("study", type=click.Path(dir_okay=False, path_type=str))
_SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a field of the study, as constraints.ttft_ms=800 or model=qwen3-235b. Repeatable.",
)
APPROXIMATE = click.option(
    "--approximate",
    is_flag=True,
    help="Take the nearest model where the file has fields that are not modelled; every result says so.",
)
_JSON = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else (the default in a pipe)."
)
_TABLE = click.option("--table", "as_table", is_flag=True, help="The table, also in a pipe.")
STORAGE = click.option(
    "--storage",
    help="Optuna storage: a journal file or .db file, which serve one machine, or postgresql://USER@HOST/DATABASE for "
    "any number (password: in the URL, PGPASSWORD or ~/.pgpass). Default: your data folder.",
)
JOBS = click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processes that score.")
BACKEND = click.option(
    "--backend",
    type=click.Choice(["joblib", "dask", "ray"]),
    default="joblib",
    show_default=True,
    help="What runs them: processes here, or a Dask or Ray cluster.",
)
SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="The cluster: tcp://HOST:8786 (Dask), HOST:6379 or ray://HOST:10001 (Ray)."
)
_FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "html", "json"]),
    help="Default: what the name of --out ends in, else terminal, JSON in a pipe.",
)
VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Everything, on a terminal.")
_OUT_FILE = click.option("--out", type=NewFile(), help="File to write instead of standard output.")
HTML = click.option("--html", type=NewFile(), help="Page for people: one self-contained file.")
MODELS = click.option(
    "--models", type=click.Path(file_okay=False), help="Folder of config.json files, matched by model name."
)


VARIABLES = click.option(
    "--var",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable of the script or manifest that is set elsewhere, as TP=8. Repeatable.",
)


def given_variables(variables: tuple[str, ...]) -> dict[str, str]:
    """What `VARIABLES` holds, by name. Raises `InputError` where one is not NAME=VALUE."""
    from costmodel.errors import InputError

    for text in variables:
        name, equals, _ = text.partition("=")
        if not equals or not (name.isidentifier() or name in tuple("123456789")):  # words that a script is called with
            raise InputError.single("--var", f"must read NAME=VALUE, as in TP=8, got {text!r}")
    return {name: value for name, _, value in (text.partition("=") for text in variables)}


class Question(NamedTuple):  # no dataclass: --help does without what those import
    """A study, and changes to it."""

    path: str
    overrides: tuple[str, ...]

    def load(self, traffic: str | None = None, reading: ReadOptions | None = None) -> Study:
        """The study with its changes, under other traffic where it is given. Raises `InputError` as `load_study`."""
        from pathlib import Path

        from autotune.traffic.load import load_study
        from autotune.traffic.options import AS_THEY_SAY

        return load_study(Path(self.path), self.overrides, traffic=traffic, options=reading or AS_THEY_SAY)

    def command(self, name: str, *words: str, settings: tuple[str, ...] = ()) -> str:
        """A command about it, with more of its words and changes."""
        from autotune.report.study_words import asked

        return asked(name, self.path, *words, settings=(*self.overrides, *settings))


def QUESTION(command: Command) -> Command:  # noqa: N802  # an option like the others
    """A study and changes to it, handed over as `question`."""

    @wraps(command)
    def asked(*args: Any, study: str, overrides: tuple[str, ...], **options: Any) -> Any:
        return command(*args, question=Question(study, overrides), **options)

    return _STUDY(SET(cast("Command", asked)))


def FLAGS(command: Command) -> Command:  # noqa: N802
    """`--json` and `--table` as they are given."""
    return _JSON(_TABLE(command))


def FORMS(command: Command) -> Command:  # noqa: N802
    """In which form, into which file, and how much of it."""
    return _FORMAT(_OUT_FILE(VERBOSE(FLAGS(command))))


def SHOWN(command: Command) -> Command:  # noqa: N802
    """JSON, or tables for people: handed over as `as_json`, which is true in a pipe unless the table is asked for."""

    @wraps(command)
    def shown(*args: Any, as_json: bool, as_table: bool, **options: Any) -> Any:
        return command(*args, as_json=wants_json(as_json, as_table), **options)

    return FLAGS(cast("Command", shown))


def READING(command: Command) -> Command:  # noqa: N802
    """What a request log or metrics leave open: passed on as `reading`, an `autotune.traffic.options.ReadOptions`."""

    @click.option(
        "--time-unit",
        type=click.Choice(["s", "ms", "us", "ns"]),
        help="Of times that are numbers. Default: recognised.",
    )
    @click.option(
        "--block-tokens", type=click.IntRange(1, 1 << 20), help="Prompt tokens per block hash. Default: recognised."
    )
    @click.option(
        "--max-bad", type=float, default=0.05, show_default=True, help="Share of unusable lines that is borne."
    )
    @click.option(
        "--match",
        multiple=True,
        metavar="NAME=VALUE",
        help="Only requests with this label or field, as model_name=my-model. Repeatable.",
    )
    @wraps(command)
    def reading(
        *args: Any, time_unit: str | None, block_tokens: int | None, max_bad: float, match: tuple[str, ...], **rest: Any
    ) -> Any:
        from autotune.traffic.options import read_options

        options = read_options(time_unit=time_unit, block_tokens=block_tokens, max_bad_frac=max_bad, match=match)
        return command(*args, reading=options, **rest)

    return cast("Command", reading)


def wants_json(as_json: bool, as_table: bool) -> bool:
    """JSON where it is asked for, and in a pipe unless the table is."""
    return as_json or not (as_table or sys.stdout.isatty())


def SET(command: Command) -> Command:  # noqa: N802  # an option like the others
    """Changes to a study: `--set PATH=VALUE`, and `--approximate` for `--set approximate=true`."""

    @wraps(command)
    def changed(*args: Any, overrides: tuple[str, ...], approximate: bool, **options: Any) -> Any:
        return command(*args, overrides=(*overrides, *(("approximate=true",) if approximate else ())), **options)

    return _SET(APPROXIMATE(cast("Command", changed)))
