"""`autotune` run inside the test's own process: what a process of its own would print and exit with, without its start.

A process of its own costs a second of imports. Tests that need one (signals, imports, memory, environment) start it.
"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from autotune.cli.main import main


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def autotune(*arguments: str, cwd: Path | None = None, data: Path | None = None) -> Done:
    """Run the command with its output in pipes, in the folder `cwd`, and with `data` as the user's data folder.

    What is no message of the command, a traceback in a process of its own, is raised here.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    code: object = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["autotune", *arguments])
        if data is not None:
            patch.setenv("XDG_DATA_HOME", str(data))
        if cwd is not None:
            patch.chdir(cwd)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8"))  # type: ignore[attr-defined]  # a BytesIO, see above
    return Done(returncode=code if isinstance(code, int) else int(code is not None), stdout=texts[0], stderr=texts[1])
