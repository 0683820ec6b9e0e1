"""Several models on one cluster: `autotune divide`."""

from __future__ import annotations

import sys

import click

from autotune.cli.options import EXIT_INFEASIBLE, HTML, QUESTION, SHOWN, Question


@click.command()
@QUESTION
@HTML
@SHOWN
def divide(question: Question, html: str | None, as_json: bool) -> None:
    """Divide the GPUs of a cluster among the models of STUDY, each with its own traffic, limits and importance.

    STUDY has a table [[models]] for each model. What stands outside them holds for all; a table within a model takes
    the place of the file's. Of its own a model has: name, weight (what serving all of its requests is worth), gpus
    (what it has today), min_gpus, and awake_h (hours in which it has traffic; others may have its GPUs otherwise).
    [division] unit = "node", "domain" or "gpu" says what is handed out whole.

    Tables of what each model serves within its limits on every number of GPUs are made as `tune` makes them; the
    division is exact: none is worth more. The answer says what one more node is worth to each model and to the
    cluster, and what the present division loses.

    \b
    autotune divide studies/clusters/four-models-256xh100.toml --table
    autotune divide studies/clusters/four-models-256xh100.toml --set cluster.gpus=320 --html page.html

    Exit code 0: every model is served whole; 3: some are not; 2: the input is wrong.
    """
    from pathlib import Path

    from autotune.cli.output import show, write_page
    from autotune.planning import divide_cluster, load_models_study
    from autotune.report.division import division_document, division_report

    found = divide_cluster(load_models_study(Path(question.path), question.overrides))
    first, *others = found.study.types
    more = f"cluster.gpus={(first.units + 1) * first.unit_gpus}"  # what one unit more brings
    steps = [] if found.serves_all or others else [question.command("divide", settings=(more,))]
    document = division_document(found, steps=steps)
    if html is not None:
        from autotune.report.html.cluster_pages import division_page

        write_page(html, division_page(document, made_by=question.command("divide")))
    show(document, division_report, as_json=as_json)
    sys.exit(0 if found.serves_all else EXIT_INFEASIBLE)
