"""What a study asks, on one line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from autotune.engines import engine_title
from autotune.report.text_blocks import Block, Line
from autotune.study import Study


def study_headline(study: Study, about: str) -> str:
    """What a study is about, on one line."""
    gpus = f"{study.cluster.gpus} x {study.cluster.gpu.name}"
    return f"{study.name}: {study.arch.name} on {gpus}, {engine_title(study.engine)}; {about}"


def command(study: Study, name: str, *options: str, settings: Sequence[str] = ()) -> Line:
    """A command about a study that runs as it stands, with every `--set` that made the study."""
    last = {text.partition("=")[0]: text for text in (*study.overrides, *settings)}
    changes = [word for text in last.values() for word in ("--set", text)]
    return Line(text=shlex.join(["autotune", name, str(study.path), *options, *changes]), whole=True)


def file_block(path: str, text: str) -> Block:
    """The study file that options stand for, without the lines that only comment."""
    said = [line.partition("#")[0].rstrip() for line in text.splitlines()]
    lines = tuple(Line(text=line, whole=True, tone="dim") for line in said if line)
    return Block(title=f"The study file that this stands for: {path}", lines=lines)
