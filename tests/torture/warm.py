"""Imported by the process that all commands are forks of: one whole command each way, so that a fork imports nothing.

What a fork does not import it cannot be killed in either: a run is short, and most of it is work on the storage.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

from autotune.cli.main import main
from tests.torture.harness import OVERRIDES, STUDY


def _warm() -> None:
    before = sys.argv
    with tempfile.TemporaryDirectory(prefix="autotune-warm-") as folder:
        for name in ("journal.log", "runs.db"):
            options = [x for o in OVERRIDES for x in ("--set", o)]
            where = ["--storage", str(Path(folder) / name), "--out", folder]
            sys.argv = ["autotune", "tune", str(STUDY), *options, *where, "--json", "--top", "0"]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                main()
    sys.argv = before


_warm()
