"""What other tools read: networkx, Graphviz, Perfetto."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx
import pytest

from autotune.graph import PlanGraph, plan_graph, write_graph
from autotune.graph.export.dot import quoted, spans
from costmodel.errors import InputError
from tests.graph.plans import REFERENCE, study

HOSTILE = 'a"]; evil [label="</script>\\\n<b>x</b>\x00\u2028'


@cache
def _drawn(phase: str = "decode", collapse: str | None = None) -> PlanGraph:
    return plan_graph(study(REFERENCE), phase=phase, collapse=collapse)


def _document(graph: PlanGraph, form: str, folder: Path) -> Any:
    write_graph(graph, form, folder / "out.json")
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("collapse", [None, "layer", "rank"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_networkx_reads_the_same_graph(phase: str, collapse: str | None, tmp_path: Path) -> None:
    """Nodes, edges, seconds and the graph's attributes come back; written again by networkx they are the same."""
    graph = _drawn(phase, collapse)
    document = _document(graph, "json", tmp_path)
    read = networkx.node_link_graph(document)
    assert isinstance(read, networkx.DiGraph)
    assert networkx.is_directed_acyclic_graph(read)
    assert (read.number_of_nodes(), read.number_of_edges()) == (graph.num_nodes, graph.num_edges)
    assert read.graph["scheduled_step_s"] == graph.scheduled_step_s
    assert read.graph["model_step_s"] == graph.model_step_s
    assert read.graph["scheduled_step_s"] == pytest.approx(read.graph["model_step_s"], rel=0.05)
    assert sorted(read.edges) == sorted(zip(graph.edges.source.tolist(), graph.edges.target.tolist(), strict=True))
    again = networkx.node_link_data(read)
    assert sorted(again["nodes"], key=lambda n: n["id"]) == document["nodes"]
    node = read.nodes[graph.num_nodes - 1]
    assert node["seconds"] == pytest.approx(node["end_s"] - node["start_s"])


def test_json_can_be_scheduled_from_what_it_says(tmp_path: Path) -> None:
    """Seconds, streams, ranks and edges of the file alone give the step again."""
    document = _document(_drawn(), "json", tmp_path)
    before = defaultdict(list)
    for edge in document["edges"]:
        before[edge["target"]].append(edge["source"])
    free: dict[tuple[str, int], float] = defaultdict(float)
    end: dict[int, float] = {}
    for node in sorted(document["nodes"], key=lambda n: (n["start_s"], n["id"])):
        streams = [(node["stream"], rank) for rank in node.get("busy_ranks", node["ranks"])]
        start = max([end[p] for p in before[node["id"]]] + [free[s] for s in streams], default=0.0)
        end[node["id"]] = start + node["seconds"]
        free |= dict.fromkeys(streams, end[node["id"]])
    assert max(end.values()) == pytest.approx(document["graph"]["scheduled_step_s"])


def test_hostile_names(tmp_path: Path) -> None:
    """A study's name can neither end a string nor start a tag where one is not looked for; JSON gives it back."""
    graph = replace(_drawn(collapse="layer"), study=HOSTILE, model=HOSTILE)
    assert networkx.node_link_graph(_document(graph, "json", tmp_path)).graph["study"] == HOSTILE
    assert _document(graph, "perfetto", tmp_path)["otherData"]["model"] == HOSTILE
    write_graph(graph, "dot", tmp_path / "x.dot")
    text = (tmp_path / "x.dot").read_text(encoding="utf-8")
    assert "\x00" not in text
    assert quoted(HOSTILE)[1:-1] in text
    assert quoted('a"\\\n') == '"a\\"\\\\\\n"'
    lone = replace(graph, study="\ud800")
    write_graph(lone, "dot", tmp_path / "lone.dot")
    write_graph(lone, "json", tmp_path / "lone.json")


@pytest.mark.parametrize("name", ["reference-128", HOSTILE])
@pytest.mark.parametrize("collapse", ["layer", "rank"])
def test_graphviz_renders(collapse: str, name: str, tmp_path: Path) -> None:
    """`dot` draws every node and edge without a complaint."""
    program = shutil.which("dot")
    if program is None:
        pytest.skip("no Graphviz (apt-get install graphviz)")
    graph = replace(_drawn(collapse=collapse), study=name)
    write_graph(graph, "dot", tmp_path / "x.dot")
    done = subprocess.run([program, "-Tplain", str(tmp_path / "x.dot")], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = [line.split(" ", 1)[0] for line in done.stdout.splitlines()]
    assert lines.count("node") == graph.num_nodes
    assert lines.count("edge") == graph.num_edges


def test_ranks_as_text() -> None:
    """Runs of neighbours are joined, and long lists end."""
    assert spans((0, 1, 2, 5)) == "GPU 0-2, 5"
    assert spans(tuple(range(0, 12, 2))) == "GPU 0, 2, 4, 6 and 2 more runs"


@pytest.mark.parametrize("collapse", [None, "layer", "rank"])
def test_chrome_trace(collapse: str | None, tmp_path: Path) -> None:
    """A named track per GPU and per link, microseconds, and no two slices of a track at a time."""
    graph = _drawn("decode", collapse)
    document = _document(graph, "perfetto", tmp_path)
    events = document["traceEvents"]
    slices: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for event in (e for e in events if e["ph"] == "X"):
        slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for track in slices.values():
        track.sort()
        assert all(b[0] >= a[1] - 1e-6 for a, b in pairwise(track))
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert set(named) == set(slices)
    assert len(set(named.values())) == len(named)
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert {processes[p] for p, _ in slices} == set(processes.values())
    last = max(end for track in slices.values() for _, end in track)
    assert last == pytest.approx(graph.scheduled_step_s * 1e6, abs=0.01)
    if collapse is None:
        assert [t for p, t in sorted(slices) if processes[p] == "GPUs"] == list(range(32))
        assert named[1, 4] == "GPU 4 (replica 0, stage 1, host 0)"
        assert {n for n in named.values() if n.endswith("NIC")} == {f"GPU {g} NIC" for g in range(32)}


def test_what_cannot_be_written(tmp_path: Path) -> None:
    """A folder that is a file, traces of other ranks, an unknown format: said before anything is written."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        write_graph(_drawn(), "json", tmp_path / "file" / "out.json")
    with pytest.raises(InputError, match="chakra writes a folder, but this is a file"):
        write_graph(_drawn(), "chakra", tmp_path / "file")
    with pytest.raises(InputError, match="format: must be one of json, dot, perfetto, chakra, got 'svg'"):
        write_graph(_drawn(), "svg", tmp_path / "x")
    with pytest.raises(InputError, match="collapse: chakra writes a trace per rank"):
        write_graph(_drawn(collapse="layer"), "chakra", tmp_path / "x")
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "rank.99.et").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds traces of other ranks already, as rank\.99\.et"):
        write_graph(_drawn(), "chakra", tmp_path / "traces")
    assert [f.name for f in (tmp_path / "traces").iterdir()] == ["rank.99.et"]
