"""Another tool's ranking beside ours: `autotune explain`."""

from __future__ import annotations

import click

from autotune.cli.options import QUESTION, SHOWN, Question


@click.command()
@QUESTION
@click.option(
    "--against",
    required=True,
    type=(click.Choice(["aiconfigurator"]), click.Path(exists=True, file_okay=False)),
    metavar="TOOL FOLDER",
    help="The tool, aiconfigurator, and the folder that its --save-dir wrote: of a run, or of one experiment.",
)
@SHOWN
def explain(question: Question, against: tuple[str, str], as_json: bool) -> None:
    """Find another tool's picks in the ranking of STUDY, and say operator by operator why the two differ.

    NVIDIA AIConfigurator's picks are read from best_config_topn.csv of every experiment. Each is scored here twice:
    with the tool's own load, so that TTFT, TPOT and throughput are of the same thing, and with the load that we find
    best within the limits, which gives its rank. STUDY has to ask what the tool was asked; where it does not, the
    answer says so. Its times of single operators are not in the folder; which of them it measured is, and is said.

    \b
    autotune explain --against aiconfigurator results/run studies/deepseek-v3-128xh200.toml --table

    Exit code 0: the picks were compared; 2: the input is wrong.
    """
    from pathlib import Path

    from autotune.cli.output import progress_bar, show
    from autotune.comparison.aiconfigurator import read_picks
    from autotune.comparison.peer_picks import explain_picks
    from autotune.report.peer_picks import explanation_document, explanation_report

    loaded, picks = question.load(), read_picks(Path(against[1]))
    with progress_bar(quiet=as_json) as report:
        found = explain_picks(loaded, picks, progress=report)
    show(explanation_document(found), lambda _: explanation_report(found), as_json=as_json)
