"""Writing a graph: whole files or none, and a folder for the traces of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from autotune.files import write_file
from autotune.graph.export.chakra import chakra
from autotune.graph.export.dot import dot
from autotune.graph.export.node_link import node_link
from autotune.graph.export.perfetto import perfetto
from autotune.graph.values import PlanGraph
from costmodel.errors import InputError

TEXTS: dict[str, Callable[[PlanGraph], Iterator[str]]] = {"json": node_link, "dot": dot, "perfetto": perfetto}
"""Formats of one text document -> its pieces."""
FORMATS = (*TEXTS, "chakra")


def write_graph(graph: PlanGraph, form: str, out: Path) -> tuple[Path, ...]:
    """Write `graph` as `form` (of `FORMATS`) to the file `out`, for `chakra` to the folder `out`; what was written.

    Raises:
        InputError: the format is none of ours, cannot hold a collapsed graph, or `out` cannot be written.
    """
    if form in TEXTS:
        write_file(out, (piece.encode("utf-8", "replace") for piece in TEXTS[form](graph)), durable=False)
        return (out,)
    if form != "chakra":
        raise InputError.single("format", f"must be one of {', '.join(FORMATS)}, got {form!r}")
    if graph.collapse is not None:
        raise InputError.single("collapse", "chakra writes a trace per rank; leave it out")
    return _write_folder(graph, out)


def _write_folder(graph: PlanGraph, out: Path) -> tuple[Path, ...]:
    expected = {f"rank.{rank}.et" for rank in range(len(graph.ranks))}
    if out.exists() and not out.is_dir():
        raise InputError.single(str(out), "chakra writes a folder, but this is a file")
    strange = sorted(f.name for f in out.glob("*.et") if f.name not in expected) if out.is_dir() else []
    if strange:
        raise InputError.single(str(out), f"holds traces of other ranks already, as {strange[0]}: name another folder")
    written = []
    for name, content in chakra(graph):
        write_file(out / name, content, durable=False)
        written.append(out / name)
    return tuple(written)
