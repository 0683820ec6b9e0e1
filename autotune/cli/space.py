"""What a study could choose from, without scoring: `autotune space`."""

from __future__ import annotations

import click

from autotune.cli.options import QUESTION, SHOWN, VERBOSE, Question

FEW = 8
"""Layouts that are listed without --verbose."""


@click.command()
@QUESTION
@VERBOSE
@SHOWN
def space(question: Question, verbose: bool, as_json: bool) -> None:
    """List the valid layouts of STUDY, and how many each rule forbids, without scoring."""
    from collections import Counter

    from autotune.cli.output import show
    from autotune.engines import engine_title
    from autotune.report.answer import rejected_lines
    from autotune.report.document import candidate_document, counts_document
    from autotune.report.study_words import command, study_headline
    from autotune.report.text_blocks import Block, Report, text_table
    from autotune.space import conditions, short_plan
    from autotune.tuning.study_space import study_space

    loaded = question.load()
    found = study_space(loaded)
    counts = counts_document(found, feasible=0, infeasible={})
    needs = conditions(loaded.arch, found.candidates, loaded.engine_version)

    def report(_: object) -> Report:
        rows = []
        for c in found.candidates:
            stages = sorted(Counter(c.layout.stage_layers).items(), reverse=True)
            name = short_plan(c.layout, dense=not loaded.arch.is_moe) + ("" if c.gpu is None else f" @{c.gpu}")
            rows.append((engine_title(c.engine), name, ", ".join(f"{n} x {layers}" for layers, n in stages)))
        shown = rows if verbose else rows[:FEW]
        table = text_table(("engine", "plan", "layers per stage"), shown, texts=(0, 1, 2))
        left = () if len(shown) == len(rows) else (f"and {len(rows) - FEW:,} more; -v: all",)
        return Report(
            headline=study_headline(loaded, "layouts that the engines' rules allow"),
            reason=f"{found.enumerated:,} enumerated, {len(rows):,} valid.",
            lines=tuple(f"{count:,} of these start only with {rule.text}" for rule, count in needs),
            blocks=(
                Block(title="Layouts", table=table, lines=left, tight=True),
                Block(title="Rejected, by rule", lines=rejected_lines(found.rejected), tight=True),
                Block(title="Assumed of the model", lines=loaded.arch.assumptions, tight=True),
                Block(title="Next", lines=(command(loaded, "tune"),), tight=True),
            ),
        )

    document = {
        "study": loaded.name,
        "counts": {k: counts[k] for k in ("enumerated", "valid", "rejected")},
        "conditions": {rule.name: count for rule, count in needs},
        "assumptions": list(loaded.assumptions),
        "layouts": [candidate_document(c) for c in found.candidates],
    }
    show(document, report, as_json=as_json)
