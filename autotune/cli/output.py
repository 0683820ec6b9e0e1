"""What commands write: a document as JSON or for people, into a file or not, and how far they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from autotune.cli.options import wants_json
from autotune.files import write_file
from autotune.report.files import to_json
from autotune.report.markdown import markdown_report
from autotune.report.text_blocks import Report, brief
from costmodel.errors import InputError

SUFFIXES = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json", ".txt": "terminal"}
"""Ending of a file -> the form that it is taken to be in where none is asked for."""
PATIENCE_S = 2.0
"""What takes longer gets a progress bar."""


def show(document: dict[str, Any], report: Callable[[dict[str, Any]], Report], *, as_json: bool) -> None:
    """A document on standard output: as JSON, or the report on it."""
    if as_json:
        sys.stdout.write(to_json(document))
    else:
        from autotune.report.terminal import print_report, stdout_console  # rich is for those who read a table

        print_report(stdout_console(), report(document))


def publish(
    document: dict[str, Any],
    report: Callable[[dict[str, Any]], Report],
    page: Callable[[dict[str, Any]], str],
    *,
    form: str,
    out: str | None,
    short: Sequence[str] | None = None,
) -> None:
    """A document in a form of `chosen_form`, on standard output or into a file.

    `short`: keys of the blocks that standard output shows alone; None: all.
    """
    if form == "terminal":
        from autotune.report.terminal import WIDTH, Terminal, print_report, stdout_console

        if out is None:
            shown = report(document)
            print_report(stdout_console(), shown if short is None else brief(shown, short))
            return
        buffer = StringIO()
        print_report(Terminal(width=WIDTH, file=buffer), report(document))
        text = buffer.getvalue()
    elif form == "markdown":
        text = markdown_report(report(document))
    else:
        text = page(document) if form == "html" else to_json(document)
    if out is None:
        sys.stdout.write(text)
    else:
        write_file(Path(out), text)


def write_page(path: str, page: str) -> None:
    """A page into a file, and where it lies on standard error."""
    write_file(Path(path), page)
    sys.stderr.write(f"report: {path}\n")


def chosen_form(form: str | None, out: str | None, *, as_json: bool, as_table: bool) -> str:
    """The form that is asked for, else the one that the file's name says, else terminal, or JSON in a pipe.

    Raises:
        InputError: two are asked for, or the file's name says none that is known.
    """
    if form is not None and (as_json or as_table):
        raise InputError.single("--format", "must not be given with --json or --table")
    if form is None and out is not None and not (as_json or as_table):
        ending = Path(out).suffix.lower()
        if ending and ending not in SUFFIXES:
            message = f"must end in {', '.join(SUFFIXES)}, or --format says the form, got {out!r}"
            raise InputError.single("--out", message)
        form = SUFFIXES.get(ending)
    return form or ("json" if wants_json(as_json, as_table) else "terminal")


@contextmanager
def progress_bar(*, quiet: bool, title: str = "scoring plans") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal for what takes longer than `PATIENCE_S`."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from autotune.report.terminal import Terminal

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Terminal(stderr=True), transient=True)
    task = bar.add_task("", total=None)
    started, shown = time.monotonic(), False

    def report(done: int, total: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > PATIENCE_S:
            bar.start()
            shown = True
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if shown:
            bar.stop()
