"""Models and GPUs known by name: `autotune catalog`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autotune.cli.options import SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from autotune.report.text_blocks import Report
    from costmodel.hardware import Gpu

GPU_FIELDS = (
    "peak_flops_per_s",
    "hbm_bytes",
    "hbm_bytes_per_s",
    "scaleup_gpus",
    "scaleup_bytes_per_s",
    "scaleout_bytes_per_s",
    "generation",
    "sources",
)


@click.command()
@SHOWN
def catalog(as_json: bool) -> None:
    """List the models and GPUs known by name."""
    from autotune.cli.output import show
    from costmodel.arch import active_params, load_model, model_names, short_names, total_params
    from costmodel.hardware import gpu_names, load_gpu

    models = {name: load_model(name) for name in model_names()}
    gpus = {name: load_gpu(name) for name in gpu_names()}
    short = short_names()
    document = {
        "models": {
            n: {"total_params": total_params(a), "active_params": active_params(a), "short_names": list(short[n])}
            for n, a in models.items()
        },
        "gpus": {n: _figures(gpu) for n, gpu in gpus.items()},
    }
    show(document, _report, as_json=as_json)


def _figures(gpu: Gpu) -> dict[str, Any]:
    from costmodel.hardware import Cluster

    host = Cluster(gpus=gpu.gpus_per_node, gpu=gpu, gpus_per_node=gpu.gpus_per_node)
    return {field: getattr(gpu, field) for field in GPU_FIELDS} | {"scaleup_gpus": host.domain_gpus}


def _report(document: dict[str, Any]) -> Report:
    from autotune.report.text_blocks import Block, Report, table_of, text_table

    models, gpus = document["models"], document["gpus"]
    rows = []
    for name, m in models.items():
        sizes = (f"{m[n] / 1e9:,.1f}" for n in ("total_params", "active_params"))
        rows.append((m["short_names"][0] if m["short_names"] else name, *sizes, name))
    model_table = text_table(("name", "B params", "active", "model"), rows, texts=(0, 3))
    return Report(
        headline=f"{len(models)} models and {len(gpus)} GPUs",
        blocks=(
            Block(title="Models", table=model_table, lines=("Further short names are in --json.",)),
            Block(
                title="GPUs",
                table=table_of(gpus.items(), _gpu_columns(), texts=(0, 1)),
                lines=("TB/s: of memory; scale-up GPUs: joined by fast links, GB/s in and out of which are a GPU's.",),
            ),
        ),
    )


def _gpu_columns() -> dict[str, Callable[[Any], str]]:
    """Title -> cell of a GPU's (name, fields)."""

    def peak(dtype: str) -> Callable[[Any], str]:
        return lambda g: f"{g[1]['peak_flops_per_s'][dtype] / 1e12:,.0f}" if dtype in g[1]["peak_flops_per_s"] else "–"

    return {
        "GPU": lambda g: g[0],
        "generation": lambda g: g[1]["generation"],
        "BF16 TFLOP/s": peak("bf16"),
        "FP8": peak("fp8"),
        "FP4": peak("fp4"),
        "HBM GiB": lambda g: f"{g[1]['hbm_bytes'] / 2**30:.0f}",
        "TB/s": lambda g: f"{g[1]['hbm_bytes_per_s'] / 1e12:.2f}",
        "scale-up GPUs": lambda g: str(g[1]["scaleup_gpus"]),
        "GB/s in": lambda g: f"{g[1]['scaleup_bytes_per_s'] / 1e9:.0f}",
        "GB/s out": lambda g: f"{g[1]['scaleout_bytes_per_s'] / 1e9:.0f}",
    }
