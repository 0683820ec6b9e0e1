"""What the engine in production is started with where that is not as the study starts every other plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from autotune.study.question import Study
from autotune.study.sections import EngineOptions, OwnOptions

_OPTIONS = tuple(field.name for field in fields(EngineOptions))


def started_with(study: Study, own: OwnOptions | None) -> Study:
    """The question about a plan whose engine is started with options of its own; None: as every other."""
    if own is None:
        return study
    given = {name: value for name in _OPTIONS if (value := getattr(own, name)) is not None}
    axes = replace(study.axes, speculative=None) if own.speculative is False else study.axes
    return replace(study, engine_options=replace(study.engine_options, **given), axes=axes)


def own_options(study: Study, given: OwnOptions | None) -> OwnOptions | None:
    """Those that differ from the study's; None: none does."""
    if given is None:
        return None
    usual = {name: getattr(study.engine_options, name) for name in _OPTIONS}
    usual["speculative"] = study.axes.speculative is not None
    alike: dict[str, Any] = {name: None for name, value in usual.items() if getattr(given, name) == value}
    own = replace(given, **alike)
    return None if own == OwnOptions() else own


def own_option_values(own: OwnOptions) -> dict[str, Any]:
    """What of it is not as the study has it, by name: JSON content."""
    given = asdict(own) | {"not_priced": list(own.not_priced) or None}
    return {name: value for name, value in given.items() if value is not None}


def own_options_from(values: Mapping[str, Any]) -> OwnOptions:
    """The same, read back from `own_option_values`."""
    return OwnOptions(**{**values, "not_priced": tuple(values.get("not_priced", ()))})


def own_option_words(study: Study, own: OwnOptions | None) -> tuple[str, ...]:
    """What of it is not as the study has it, an option each: `max_num_seqs 4 (the study: 1,024)`."""
    if own is None:
        return ()
    usual, out = study.engine_options, []
    if own.max_num_seqs is not None:
        out.append(f"max_num_seqs {own.max_num_seqs:,} (the study: {usual.max_num_seqs:,})")
    if own.gpu_memory_utilization is not None:
        filled = f"{own.gpu_memory_utilization:.3g} (the study: {usual.gpu_memory_utilization:.3g})"
        out.append(f"gpu_memory_utilization {filled}")
    if own.cuda_graphs is not None:
        out.append("CUDA graphs (the study: none)" if own.cuda_graphs else "no CUDA graphs (the study: with them)")
    if own.speculative is not None:
        out.append("no speculative decoding (the study: with it)")
    return (*out, *(f"{option} (not priced)" for option in own.not_priced))


def own_option_sentence(study: Study, own: OwnOptions | None) -> tuple[str, ...]:
    """The same as one sentence of a plan, where there is anything to say."""
    words = own_option_words(study, own)
    return (f"its engine is started with {', '.join(words)}",) if words else ()
