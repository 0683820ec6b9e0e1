"""A study whose workload is a request log: `[workload] traffic`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.study import Study, study_from_document
from autotune.study.read_and_override import override, read_document, read_overridden
from autotune.traffic.options import AS_THEY_SAY, ReadOptions
from costmodel.errors import InputError, Problem

IN_THE_LOG = ("isl", "osl", "concurrency", "request_rate_per_s", "arrivals", "sessions", "longest_prompt")
"""Keys of [workload] that a log says itself."""

OWN_CACHE = (
    "traffic: prompts share what the caches of a plan's own replicas have room for, by the log's block hashes; blocks "
    "that were used longest ago are dropped"
)


def load_study(
    path: Path | str, overrides: Sequence[str] = (), *, traffic: str | None = None, options: ReadOptions = AS_THEY_SAY
) -> Study:
    """Read a study file, and the request log that its `workload.traffic` names, if it does.

    With a log, lengths, rate and shared prefixes are the log's: the rate is that of its fullest bin. Percentiles are
    of its own requests at their own times.

    Args:
        path: the TOML or JSON file; `model`, `calibration` and `traffic` in it are relative to it.
        overrides: `a.b.c=VALUE`, applied in order.
        traffic: a log, or metrics, in place of what [workload] says of lengths, rate and arrivals.
        options: what the log does not say of itself.

    Raises:
        InputError: every problem of the file, the overrides, the model and the GPU, each with its path; or what is
            wrong with the log.
    """
    file = Path(path)
    document = read_document(file)
    if "models" in document:
        raise InputError.single("$.models", "makes it a study of several models on one cluster: see `autotune divide`")

    def read(asked: dict[str, Any]) -> Study:
        loaded = study_at(asked, file, traffic=traffic, options=options)
        return replace(loaded, overrides=(*overrides, *_settings_of(traffic, asked.get("workload"))))

    return read_overridden(document, overrides, read)


def log_settings(path: Path, overrides: Sequence[str], traffic: str) -> tuple[str, ...]:
    """What `--set` has to say beside `overrides` for the study of a file to be that of the log `traffic`.

    Raises:
        InputError: the file cannot be read, or a setting names no field.
    """
    return _settings_of(traffic, override(read_document(path), overrides).get("workload"))


def _settings_of(traffic: str | None, workload: object) -> tuple[str, ...]:
    """What `--set` has to say for a study of its own log to be that of `traffic`: none where that is no file."""
    if traffic is None or not Path(traffic).is_file():
        return ()
    own = workload if isinstance(workload, Mapping) else {}
    left_out = (f"workload.{key}=" for key in IN_THE_LOG if key in own)
    return (f"workload.traffic={Path(traffic).resolve()}", *left_out)


def study_at(
    document: Mapping[str, Any], file: Path, *, traffic: str | None = None, options: ReadOptions = AS_THEY_SAY
) -> Study:
    """The study that the content of a file at this place makes, with the log that it names.

    `traffic` and `options` as in `load_study`.

    Raises:
        InputError: as `load_study`.
    """
    workload = document.get("workload")
    named = workload.get("traffic") if isinstance(workload, Mapping) else None
    if traffic is not None:
        table = workload if isinstance(workload, Mapping) else {}
        kept = {key: value for key, value in table.items() if key not in (*IN_THE_LOG, "traffic")}
        return _with_log(file, {**document, "workload": kept}, traffic, traffic, options)
    if isinstance(workload, Mapping) and "sessions" in workload:
        from autotune.traffic.sessions import with_sessions

        return with_sessions(study_from_document(document, file))
    if not isinstance(workload, Mapping) or not isinstance(named, str):
        return study_from_document(document, file)
    given = [key for key in IN_THE_LOG if key in workload]
    if given:
        message = "must not be given with workload.traffic, whose log says it itself"
        raise InputError(Problem(path=f"$.workload.{key}", message=message) for key in given)
    return _with_log(file, document, named, str(file.parent / Path(named).expanduser()), options)


def _with_log(file: Path, document: Mapping[str, Any], named: str, source: str, options: ReadOptions) -> Study:
    """A study of `document` with the traffic of `source`, which it calls `named`."""
    # the readers of logs: half a second of imports on a busy machine, which most studies do without
    from autotune.traffic.read import read_traffic
    from autotune.traffic.replayed import requests_of_log
    from autotune.traffic.workload import with_traffic

    # a table that reads as one without a log, whose figures take its place; with one output token alone limits on those
    # after the first would have no meaning
    stand_in = {**document["workload"], "isl": 1, "osl": 2, "request_rate_per_s": 1.0}
    plain = study_from_document({**document, "workload": stand_in}, file)
    log = read_traffic(source, options=replace(options, model=options.model or plain.arch.name))
    if log.refusal is not None:
        raise InputError.single("$.workload.traffic", f"{source}: {log.refusal}")
    profile = log.profile()
    loaded = with_traffic(plain, profile)
    if log.columns is None:
        return loaded
    recorded = requests_of_log(source, log, loaded.workload.prefix_cache_hit_frac)
    cached = () if recorded.blocks is None else (OWN_CACHE,)
    return replace(
        loaded,
        assumptions=(*loaded.assumptions, *cached),
        workload=replace(loaded.workload, traffic=named, traffic_digest=log.fingerprint, recorded=recorded),
    )
