"""A benchmark against its prediction: `autotune verify`."""

from __future__ import annotations

import click

from autotune.cli.options import SET, SHOWN


@click.command()
@click.argument("result", type=click.Path(dir_okay=False))
@click.option(
    "--study", type=click.Path(dir_okay=False), help="Default: study.json that an export wrote beside the result."
)
@SET
@click.option("--plan", help="The plan that ran. Default: what the result or the export says, else the baseline.")
@SHOWN
def verify(result: str, study: str | None, overrides: tuple[str, ...], plan: str | None, as_json: bool) -> None:
    """Hold a benchmark of a plan against its prediction, and say whether the ranking would change.

    RESULT is what a benchmark wrote: that of an export, `vllm bench serve`, SGLang's bench_serving, AIPerf, GuideLLM,
    inference-perf, InferenceX or llm-d-benchmark. For each run: TTFT, TPOT, percentiles and throughput, predicted with
    their likely range (80 %) and measured. Then the run is learnt, as `autotune calibrate` would, and the study
    ranked again: does the same plan lead? The exit code is 0 whatever comes out; 2: the input is wrong.

    \b
    autotune verify out/launch/result.json
    autotune verify result.json --study studies/deepseek-v3-128xh200.toml --plan R8/TP2/DP8/EP16 --json
    """
    from pathlib import Path

    from autotune.cli.measured import bench_results
    from autotune.cli.output import progress_bar, show
    from autotune.report.verification import verification_document, verification_report
    from autotune.validation.bench import SUFFIXES
    from autotune.validation.verify import verify as verified
    from costmodel.errors import InputError

    path = Path(result)
    if path.suffix not in SUFFIXES:
        raise InputError.single(result, f"must be a benchmark's result ({' or '.join(SUFFIXES)})")
    measured, results = bench_results(path, study, plan, overrides)
    with progress_bar(quiet=as_json) as report:
        found = verified(measured.study, results, progress=report)
    document = verification_document(found, source=result, said=measured.assumptions)
    show(document, verification_report, as_json=as_json)
