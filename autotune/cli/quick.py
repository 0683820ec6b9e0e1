"""Questions without a study file: options that stand for one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import click

Command = TypeVar("Command", bound=Callable[..., Any])
QUICK = ("model", "gpus", "gpu", "engine", "isl", "osl", "ttft", "tpot", "rate", "concurrency", "baseline")
_OPTIONS = (
    click.option("--model", help="Catalog name, or the path of a config.json."),
    click.option("--gpus", type=click.IntRange(1), help="How many."),
    click.option("--gpu", help="Catalog name, as h200."),
    click.option("--engine", help="Name of an engine, as in a study file, or any."),
    click.option("--isl", type=click.IntRange(1), help="Prompt tokens."),
    click.option("--osl", type=click.IntRange(1), help="Output tokens."),
    click.option("--ttft", type=click.FloatRange(0, min_open=True), help="Most ms to the first token, mean."),
    click.option("--tpot", type=click.FloatRange(0, min_open=True), help="Most ms per further token, mean."),
    click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests per second that arrive."),
    click.option("--concurrency", type=click.IntRange(1), help="Requests in flight, instead of a rate."),
    click.option("--baseline", metavar="PLAN", help="The plan in production."),
)


def QUICK_OPTIONS(command: Command) -> Command:  # noqa: N802  # an option like the others
    """The options, handed over as one mapping, `quick`."""

    @wraps(command)
    def gathered(*args: Any, **options: Any) -> Any:
        return command(*args, quick={name: options.pop(name) for name in QUICK}, **options)

    decorated: Any = gathered
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return cast("Command", decorated)


def study_file(study: str | None, quick: dict[str, Any]) -> tuple[str, str]:
    """The path of the study that is asked about, and, where options stand for it, the text of its file.

    Such a file is kept in the user's data folder, or here where that cannot be written, so that the next command can
    name it.

    Raises:
        InputError: there is neither a study nor a model, or both; or what is needed is missing.
    """
    from pathlib import Path

    from autotune.files import write_file
    from autotune.storage import can_be_written, default_location
    from autotune.study.quick import quick_study
    from costmodel.errors import InputError

    asked = [name for name in QUICK if quick[name] is not None]
    if study is not None:
        if asked:
            message = "must not be given with a study file: change its fields with --set"
            raise InputError.single(f"--{asked[0]}", message)
        return study, ""
    if not asked:
        message = "missing argument 'STUDY': name a study file, or give --model, --gpus, --gpu, --isl and --osl"
        raise click.UsageError(message, click.get_current_context(silent=True))
    text = quick_study(_absolute(quick))
    name = text.partition("\n")[0].partition("=")[2].strip().strip('"')
    path = default_location().parent / "studies" / f"{_digest(name, text)}.toml"
    if not can_be_written(path):
        path = Path(path.name)
    write_file(path, text, durable=False)
    return str(path), text


def _absolute(quick: dict[str, Any]) -> dict[str, Any]:
    """With the path of a model's file as it is from everywhere."""
    from pathlib import Path

    from autotune.study.references import model_file

    model = quick["model"]
    file = None if not model else model_file(model, Path())
    return quick if file is None else quick | {"model": str(file.resolve())}


def _digest(name: str, text: str) -> str:
    from hashlib import sha256

    plain = "".join(c if c.isalnum() or c in "-._" else "-" for c in name)[:80].lstrip(".-") or "study"
    return f"{plain}-{sha256(text.encode()).hexdigest()[:6]}"
