"""What an export wrote, and what an import understood: for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.engines import engine_title
from autotune.launch.document import layout_values
from autotune.launch.plan import LaunchPlan
from autotune.launch.reading.import_plan import Imported
from autotune.report.text_blocks import Block, Line, Report, text_table
from autotune.report.vocabulary.plan_names import name_of_key
from autotune.report.vocabulary.words import count


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


def export_report(document: Mapping[str, Any]) -> Report:
    """What was written, for people."""
    limits, folder = document["started_with"], document["out"]
    where = f"{count(document['layout']['replicas'], 'replica')} on {count(document['nodes'], 'node')}"
    takes = f"requests of up to {limits['max_model_len']:,} tokens"
    spare = f"{limits['kv_margin_frac']:.0%} of the KV cache needed to spare"
    return Report(
        headline=f"{name_of_key(document['plan'])} for {engine_title(document['engine'])} {document['engine_version']}",
        lines=(
            f"{where}, {count(document['processes'], 'process', 'processes')}; {takes}, {spare}",
            f"{count(len(document['files']), 'file')} in {folder}: begin with {folder}/README.md",
        ),
        blocks=(Block(title="Assumed", lines=tuple(document["assumptions"])),),
    )


def exports_report(document: Mapping[str, Any]) -> Report:
    """The plans that were written, a folder each, and those that the target refuses."""
    rows = [
        (
            str(own["rank"]),
            name_of_key(own["plan"]),
            count(own["nodes"], "node"),
            own["out"],
            f"{own['started_with']['max_num_seqs']:,}",
        )
        for own in document["plans"]
    ]
    refused = tuple(f"refused: rank {p['rank']}, {name_of_key(p['plan'])}: {p['why']}" for p in document["refused"])
    table = text_table(("rank", "plan", "", "folder", "max_num_seqs"), rows, texts=(1, 2, 3))
    written = count(len(rows), "plan")
    how = ("Each folder has a README.md that says how it is started and measured.",) if rows else ()
    return Report(
        headline=f"{document['study']}: launch files of {written} for {document['target']} in {document['out']}",
        blocks=(Block(title="Written", table=table, lines=(*refused, *how)),),
    )


def import_document(imported: Imported) -> dict[str, Any]:
    """What was understood of a command, for programs."""
    return {
        "gpus": imported.gpus,
        "engine": imported.engine,
        "engine_version": imported.engine_version,
        "model": imported.model,
        "plan": imported.plan,
        "pools": (
            None
            if imported.pools is None
            else {
                role: {
                    "gpu": pool.gpu,
                    "gpus": pool.layout.gpus,
                    "layout": layout_values(pool.layout),
                    "knobs": dict(pool.knobs),
                }
                for role, pool in imported.pools.items()
            }
        ),
        "max_local_prefill_tokens": imported.max_local_prefill_tokens,
        "layout": layout_values(imported.layout),
        "knobs": dict(imported.knobs),
        "cuda_graphs": imported.started.cuda_graphs,
        "speculative": imported.started.drafts or None,
        "checkpoint_dtype": imported.checkpoint_dtype,
        "checkpoint_kv_dtype": imported.checkpoint_kv_dtype,
        "unknown": list(imported.unknown),
        "not_priced": list(imported.started.not_priced),
        "defaults": dict(imported.defaults),
        "rules_broken": list(imported.rules_broken),
        "assumptions": list(imported.assumptions),
    }


def import_report(document: Mapping[str, Any]) -> Report:
    """What was understood of a command, for people."""
    sides = document["pools"] or {"value": document}
    tables = [{**side["layout"], **side["knobs"]} for side in sides.values()]
    rows = [(name, *(_shown(name, table[name]) for table in tables)) for name in tables[0]]
    taken = {n: "found at start" if v is None else v for n, v in document["defaults"].items()}
    defaults = ", ".join(f"{name}={value}" for name, value in taken.items())
    local = document["max_local_prefill_tokens"] or 0
    front = f"prompts with at most {local:,} tokens to compute are prefilled by the decode pool"
    lines: list[str | Line] = [
        *([front] if local else []),
        *([] if document["cuda_graphs"] else ["decode steps are launched kernel by kernel, without CUDA graphs"]),
        *([f"decodes speculatively: {document['speculative']}"] if document["speculative"] else []),
        f"defaults of this version: {defaults or 'none'}",
        *(Line(text=f"breaks a rule: {text}", tone="bad") for text in document["rules_broken"]),
        *(Line(text=f"unknown: {text}", tone="open") for text in document["unknown"]),
        *(Line(text=f"not priced: {text}", tone="open") for text in document["not_priced"]),
    ]
    engine = f"{engine_title(document['engine'])} {document['engine_version']}"
    return Report(
        headline=f"{count(document['gpus'], 'GPU')}: {name_of_key(document['plan'])}",
        lines=(f"{engine}, model {document['model']}",),
        blocks=(
            Block(
                title="Understood",
                table=text_table(("", *sides), rows, texts=tuple(range(len(sides) + 1))),
                lines=tuple(lines),
            ),
            Block(title="Assumed", lines=tuple(document["assumptions"])),
        ),
    )


def _shown(name: str, value: Any) -> str:
    missing = "the checkpoint's" if name.endswith("_dtype") else "not said"
    return missing if value is None else str(value)
