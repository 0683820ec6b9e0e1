"""What an export wrote, and what an import understood: as a document and on a terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.markup import escape
from rich.table import Table

from autotune.launch.document import layout_values
from autotune.launch.plan import LaunchPlan
from autotune.launch.reading.import_plan import Imported
from autotune.report.console import Terminal

WIDTH = 120


def export_document(plan: LaunchPlan, *, target: str, folder: str, files: list[str]) -> dict[str, Any]:
    """What was written, for programs."""
    service, limits = plan.service, plan.service.limits
    return {
        "study": service.name,
        "target": target,
        "out": folder,
        "engine": service.engine,
        "engine_version": service.version,
        "model": service.model,
        "plan": service.plan,
        "layout": layout_values(service.layout),
        "nodes": len(plan.nodes),
        "processes": len(plan.processes),
        "started_with": {
            "max_model_len": limits.max_model_len,
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "kv_room_bytes": limits.kv_room_bytes,
            "kv_needed_bytes": limits.kv_needed_bytes,
            "kv_margin_frac": limits.margin_frac,
        },
        "files": files,
        "assumptions": list(plan.assumptions),
    }


def print_export(document: dict[str, Any]) -> None:
    """What was written, for people."""
    console = Terminal(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    layout, limits = document["layout"], document["started_with"]
    console.print(f"[bold]{escape(document['plan'])}[/] for {document['engine']} {document['engine_version']}")
    console.print(
        f"{layout['replicas']} replicas on {document['nodes']} nodes, {document['processes']} processes; requests of "
        f"up to {limits['max_model_len']:,} tokens, {limits['kv_margin_frac']:.0%} of the KV cache needed to spare"
    )
    folder, count = escape(document["out"]), len(document["files"])
    console.print(f"{count} files in {folder}: begin with {folder}/README.md")
    for text in document["assumptions"]:
        console.print(f"  - {escape(text)}")


def import_document(imported: Imported) -> dict[str, Any]:
    """What was understood of a command, for programs."""
    return {
        "engine": imported.engine,
        "engine_version": imported.engine_version,
        "model": imported.model,
        "plan": imported.plan,
        "layout": layout_values(imported.layout),
        "knobs": dict(imported.knobs),
        "unknown": list(imported.unknown),
        "defaults": dict(imported.defaults),
        "rules_broken": list(imported.rules_broken),
        "assumptions": list(imported.assumptions),
    }


def print_import(document: dict[str, Any]) -> None:
    """What was understood of a command, for people."""
    console = Terminal(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print(f"[bold]{escape(str(document['plan']))}[/]")
    console.print(f"{document['engine']} {document['engine_version']}, model {escape(str(document['model']))}")
    table = Table("", "value", box=None, pad_edge=False, header_style="bold")
    for group in ("layout", "knobs"):
        for name, value in document[group].items():
            missing = "the checkpoint's" if name.endswith("_dtype") else "not said"
            table.add_row(name, missing if value is None else escape(str(value)))
    console.print(table)
    taken = {n: "found at start" if v is None else v for n, v in document["defaults"].items()}
    defaults = ", ".join(f"{name}={value}" for name, value in taken.items())
    console.print(f"defaults of this version: {escape(defaults) or 'none'}")
    for text in document["rules_broken"]:
        console.print(f"  breaks a rule: {escape(text)}")
    for text in document["unknown"]:
        console.print(f"  unknown: {escape(text)}")
    for text in document["assumptions"]:
        console.print(f"  - {escape(text)}")
