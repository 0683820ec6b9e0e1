"""`autotune space`, `model` and `catalog`: what is understood, without scoring anything."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import click
from rich.table import Table

from autotune.report.console import Terminal
from autotune.report.document import candidate_document, counts_document
from autotune.report.files import to_json
from autotune.report.model import model_document, print_model
from autotune.report.table import RULE_TEXTS
from autotune.space import short_plan
from autotune.study import load_study
from autotune.tuning.workers import study_space
from costmodel.arch import active_params, load_model, model_names, read_config_file, short_names, total_params
from costmodel.hardware import gpu_names, load_gpu

WIDTH = 120
SHORT_NAMES = 3
"""Of each model, in the table."""


def run_space(study: str, overrides: tuple[str, ...], *, as_json: bool) -> None:
    """List the space."""
    loaded = load_study(Path(study), overrides)
    space = study_space(loaded)
    if as_json:
        counts = counts_document(space, feasible=0, infeasible={})
        document = {
            "study": loaded.name,
            "counts": {k: counts[k] for k in ("enumerated", "valid", "rejected")},
            "assumptions": list(loaded.assumptions),
            "layouts": [candidate_document(c) for c in space.candidates],
        }
        click.echo(to_json(document), nl=False)
        return
    console = Terminal(width=None if sys.stdout.isatty() else WIDTH)
    table = Table("engine", "plan", "layers per stage", box=None, pad_edge=False, header_style="bold")
    for c in space.candidates:
        stages = Counter(c.layout.stage_layers)
        shown = ", ".join(f"{n} x {layers}" for layers, n in sorted(stages.items(), reverse=True))
        name = short_plan(c.layout, dense=not loaded.arch.is_moe)
        table.add_row(c.engine, name if c.gpu is None else f"{name} @{c.gpu}", shown)
    console.print(table)
    console.print(f"{space.enumerated:,} enumerated, {len(space.candidates):,} valid", highlight=False)
    for rule, count in sorted(space.rejected.items(), key=lambda item: -item[1]):
        console.print(f"  rejected {count:>7,}  {rule}: {RULE_TEXTS[rule]}", highlight=False)
    for sentence in loaded.arch.assumptions:
        console.print(f"  - {sentence}", highlight=False)


def run_model(name: str, *, as_json: bool, approximate: bool = False) -> None:
    """Show a model."""
    path = Path(name)
    is_path = name.endswith(".json") or path.is_file() or path.is_dir()
    document = model_document(read_config_file(path, approximate=approximate) if is_path else load_model(name))
    if as_json:
        click.echo(to_json(document), nl=False)
        return
    print_model(Terminal(width=None if sys.stdout.isatty() else WIDTH), document)


def run_catalog(*, as_json: bool) -> None:
    """List what is known by name."""
    models = {name: load_model(name) for name in model_names()}
    gpus, short = {name: load_gpu(name) for name in gpu_names()}, short_names()
    if as_json:
        document = {
            "models": {
                n: {"total_params": total_params(a), "active_params": active_params(a), "short_names": list(short[n])}
                for n, a in models.items()
            },
            "gpus": {
                n: {
                    "peak_flops_per_s": g.peak_flops_per_s,
                    "hbm_bytes": g.hbm_bytes,
                    "hbm_bytes_per_s": g.hbm_bytes_per_s,
                    "scaleup_gpus": g.scaleup_gpus,
                    "scaleup_bytes_per_s": g.scaleup_bytes_per_s,
                    "scaleout_bytes_per_s": g.scaleout_bytes_per_s,
                    "generation": g.generation,
                    "sources": g.sources,
                }
                for n, g in gpus.items()
            },
        }
        click.echo(to_json(document), nl=False)
        return
    console = Terminal(width=None if sys.stdout.isatty() else WIDTH)
    table = Table("model", "parameters", "active", "short names", box=None, pad_edge=False, header_style="bold")
    for name, arch in models.items():
        params = f"{total_params(arch) / 1e9:,.1f} B", f"{active_params(arch) / 1e9:,.1f} B"
        table.add_row(name, *params, ", ".join(short[name][:SHORT_NAMES]))
    console.print(table)
    console.print()
    columns = (
        "GPU",
        "generation",
        "BF16 TFLOP/s",
        "FP8",
        "FP4",
        "HBM GiB",
        "TB/s",
        "domain",
        "GB/s in",
        "GB/s out",
    )
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for name, g in gpus.items():
        peaks = [
            f"{g.peak_flops_per_s[d] / 1e12:,.0f}" if d in g.peak_flops_per_s else "-" for d in ("bf16", "fp8", "fp4")
        ]
        table.add_row(
            name,
            g.generation,
            *peaks,
            f"{g.hbm_bytes / 2**30:.0f}",
            f"{g.hbm_bytes_per_s / 1e12:.2f}",
            str(g.scaleup_gpus),
            f"{g.scaleup_bytes_per_s / 1e9:.0f}",
            f"{g.scaleout_bytes_per_s / 1e9:.0f}",
        )
    console.print(table)
