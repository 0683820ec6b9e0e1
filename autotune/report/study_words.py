"""What a study asks, on one line."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import asdict

from autotune.engines import ENGINES, engine_title
from autotune.launch.export import usual_target
from autotune.launch.service import loads_by_name
from autotune.report.text_blocks import Block, Line
from autotune.scoring.plan_name import plan_name
from autotune.study import Baseline, Study, in_production, own_option_values
from autotune.tuning import PlanResult


def gpu_words(study: Study) -> str:
    """The GPUs of a study, of every type that pools may take: `8 x h100_sxm and 8 x h200_sxm`."""
    return " and ".join(f"{c.gpus} x {c.gpu.name}" for c in (study.cluster, *study.axes.other_gpus))


def study_headline(study: Study, about: str) -> str:
    """What a study is about, on one line."""
    return f"{study.name}: {study.arch.name} on {gpu_words(study)}, {engine_title(study.engine)}; {about}"


def command(study: Study, name: str, *options: str, settings: Sequence[str] = ()) -> Line:
    """A command about a study that runs as it stands, with every `--set` that made the study."""
    return Line(text=asked(name, str(study.path), *options, settings=(*study.overrides, *settings)), whole=True)


def asked(name: str, *words: str, settings: Sequence[str]) -> str:
    """A command line with its settings, the last of each field."""
    last = {text.partition("=")[0]: text for text in settings}
    return shlex.join(["autotune", name, *words, *(word for text in last.values() for word in ("--set", text))])


def called(study: Study, plan: PlanResult, *, is_baseline: bool = False) -> str:
    """What commands take a plan by: its name, or `baseline` where its engine is started with options of its own, or
    where the study's baseline has knobs or dtypes that its name alone would leave to the search.

    Names leave replicas open that fill the study's own cluster: on other GPUs it is the full string.
    """
    if plan.own_options is not None or (is_baseline and _has_settings(study)):
        return "baseline"
    if plan.pools is None and plan.layout.gpus != study.cluster.gpus:
        return plan.plan
    return plan_name(plan, dense=not study.arch.is_moe)


def _has_settings(study: Study) -> bool:
    """Whether the baseline's name says too little of it."""
    told = study.baseline
    return told is not None and (
        told != Baseline(plan=told.plan, engine=told.engine) or in_production(study, told)[1] != ()
    )


def baseline_settings(told: Baseline) -> list[str]:
    """The settings that make a plan a study's baseline, with its knobs and options."""
    values = {name: value for name, value in asdict(told).items() if value is not None and name != "engine_options"}
    own = {} if told.engine_options is None else own_option_values(told.engine_options)
    values |= {f"engine_options.{name}": value for name, value in own.items()}
    return [f"baseline.{name}={_inline(value)}" for name, value in values.items()]


def launch_steps(study: Study, plan: PlanResult, *named: str) -> tuple[Line, ...]:
    """The commands that write the launch files of a plan (`--plan NAME`; none: the first), and that hold a benchmark
    of it against the prediction; none where nobody says what the engine loads."""
    if not loads_by_name(study):
        return ()
    engine, target = plan.engine, usual_target(plan)
    settings = () if study.engine == engine else (f"engine={engine}",)
    export = command(study, "export", *named, "--target", target, "--out", "launch", settings=settings)
    if target != engine:
        return (export,)
    return (
        export,
        Line(text=f"autotune verify launch/{ENGINES[engine].bench_result}    # after launch/bench.sh", whole=True),
    )


def file_block(path: str, text: str, *, whole: bool) -> Block:
    """Where the study file lies that options stand for; the `whole` of it, a line for each of its tables."""
    if not whole:
        return Block(title="", lines=(Line(text=f"Study file: {path}", whole=True),), tight=True)
    said = (f"{key} = {_inline(value)}" for key, value in tomllib.loads(text).items())
    lines = tuple(Line(text=line, whole=True, tone="dim") for line in said)
    return Block(title=f"Study file: {path}", lines=lines, tight=True)


def _inline(value: object) -> str:
    """A TOML value on one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_inline(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)
