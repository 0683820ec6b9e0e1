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
    return Line(text=asked(name, str(study.path), *options, settings=(*study.overrides, *settings)), whole=True)


def asked(name: str, *words: str, settings: Sequence[str]) -> str:
    """A command line with its settings, the last of each field."""
    last = {text.partition("=")[0]: text for text in settings}
    return shlex.join(["autotune", name, *words, *(word for text in last.values() for word in ("--set", text))])


def file_block(path: str, text: str) -> Block:
    """The study file that options stand for, without the lines that only comment."""
    said = [line.partition("#")[0].rstrip() for line in text.splitlines()]
    lines = tuple(Line(text=line, whole=True, tone="dim") for line in said if line)
    return Block(title=f"The study file that this stands for: {path}", lines=lines)
