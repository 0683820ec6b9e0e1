"""Execution traces of every rank, read with the published schema."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.graph import PlanGraph, plan_graph, write_graph
from autotune.graph.export import wire
from tests.graph.chakra_schema import COLLECTIVES, NODE_TYPES, messages
from tests.graph.plans import DEEPSEEK, QWEN, REFERENCE, study

METADATA, NODE = messages()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One file, read back."""

    metadata: Any
    nodes: list[Any]


def _delimited(data: bytes) -> list[bytes]:
    """Messages of a stream, each behind its length."""
    out, at = [], 0
    while at < len(data):
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        out.append(data[at : at + size])
        at += size
    assert at == len(data)
    return out


def _read(folder: Path, ranks: int) -> list[Trace]:
    traces = []
    for rank in range(ranks):
        head, *rest = _delimited((folder / f"rank.{rank}.et").read_bytes())
        traces.append(Trace(metadata=METADATA.FromString(head), nodes=[NODE.FromString(m) for m in rest]))
    return traces


def _attributes(node: Any) -> dict[str, Any]:
    return {a.name: getattr(a, a.WhichOneof("value")) for a in node.attr}


CASES = {
    "reference decode": (REFERENCE, None, "decode", 1),
    "reference prefill": (REFERENCE, None, "prefill", 1),
    "two replicas": (REFERENCE, "R4/PP4/ATP8/EP8", "decode", 2),
    "dispatch and combine": (DEEPSEEK, "R2/PP1/ATP1/ADP64/EP64", "decode", 1),
    "dense": (QWEN, None, "prefill", 1),
}


@pytest.fixture(scope="module", params=list(CASES))
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A graph, its traces of all ranks, and its groups."""
    file, plan, phase, replicas = CASES[request.param]
    asked = study(file, "model=llama-3.1-70b") if request.param == "dense" else study(file)
    graph = plan_graph(asked, "PP2/TP4" if request.param == "dense" else plan, phase, replicas)
    folder = tmp_path_factory.mktemp("traces")
    written = write_graph(graph, "chakra", folder)
    assert sorted(f.name for f in folder.iterdir()) == sorted(f.name for f in written)
    groups = json.loads((folder / "comm_group.json").read_text(encoding="utf-8"))
    return graph, _read(folder, len(graph.ranks)), groups


def test_files_follow_the_schema(traced: tuple[PlanGraph, list[Trace], dict[str, list[int]]]) -> None:
    """Version, node types, and nothing that the schema does not know; encoded again by protobuf it is the same."""
    graph, traces, _ = traced
    for trace in traces:
        assert trace.metadata.version == "0.0.4"
        assert _attributes(trace.metadata)["plan"] == graph.plan
        assert _attributes(trace.metadata)["model_step_s"] == graph.model_step_s
        for node in trace.nodes:
            assert NODE_TYPES[node.type] in ("COMP_NODE", "COMM_SEND_NODE", "COMM_RECV_NODE", "COMM_COLL_NODE")
            assert NODE.FromString(node.SerializeToString()) == node
            size = node.ByteSize()
            node.DiscardUnknownFields()
            assert node.ByteSize() == size


def test_dependencies_are_earlier_nodes_of_the_rank(
    traced: tuple[PlanGraph, list[Trace], dict[str, list[int]]],
) -> None:
    """Numbers are each used once, and what a node waits for came before it and is over when it starts."""
    for trace in traced[1]:
        ends: dict[int, int] = {}
        for node in trace.nodes:
            assert node.id not in ends
            for dependency in (*node.data_deps, *node.ctrl_deps):
                assert ends[dependency] <= node.start_time_micros + 1
            ends[node.id] = node.start_time_micros + node.duration_micros
        assert any(node.data_deps for node in trace.nodes)


def test_every_rank_of_a_collective_agrees(traced: tuple[PlanGraph, list[Trace], dict[str, list[int]]]) -> None:
    """Ranks of a group see the same collectives of it, in kind, size and order; no other rank sees any of them."""
    _, traces, groups = traced
    seen: dict[str, dict[int, list[tuple[Any, ...]]]] = defaultdict(lambda: defaultdict(list))
    for rank, trace in enumerate(traces):
        for node in trace.nodes:
            if NODE_TYPES[node.type] != "COMM_COLL_NODE":
                continue
            about = _attributes(node)
            assert COLLECTIVES[about["comm_type"]] in ("ALL_REDUCE", "ALL_GATHER", "ALL_TO_ALL", "REDUCE_SCATTER")
            assert about["comm_size"] > 0
            assert about["is_cpu_op"] is False
            call = (node.name, about["comm_type"], about["comm_size"], node.start_time_micros, node.duration_micros)
            seen[about["pg_name"]][rank].append(call)
    assert set(seen) == set(groups)
    for name, by_rank in seen.items():
        assert sorted(by_rank) == sorted(groups[name])
        assert len({tuple(calls) for calls in by_rank.values()}) == 1
        assert all(int(name) > 0 and len(set(r)) == len(r) > 1 for r in groups.values())


def test_sends_and_receives_match_one_to_one(traced: tuple[PlanGraph, list[Trace], dict[str, list[int]]]) -> None:
    """Every send has its receive on the rank that it names: same tag, size and order, and none is left over."""
    graph, traces, _ = traced
    ways: dict[str, dict[tuple[int, int], list[tuple[int, int]]]] = {
        "SEND": defaultdict(list),
        "RECV": defaultdict(list),
    }
    for rank, trace in enumerate(traces):
        for node in trace.nodes:
            way = NODE_TYPES[node.type].removeprefix("COMM_").removesuffix("_NODE")
            if way in ways:
                about = _attributes(node)
                pair = (about["comm_src"], about["comm_dst"])
                assert rank == pair[way == "RECV"]
                ways[way][pair].append((about["comm_tag"], about["comm_size"]))
    assert ways["SEND"] == ways["RECV"]
    calls = [call for calls in ways["SEND"].values() for call in calls]
    assert len(calls) == sum(graph.tasks[t].name == "pp_send" for t in graph.nodes.task)
    for pair, tags in ways["SEND"].items():
        assert [t for t, _ in tags] == list(range(graph.micro_batches))
        assert graph.ranks[pair[1]].stage == graph.ranks[pair[0]].stage + 1


def test_traces_hold_the_graph(traced: tuple[PlanGraph, list[Trace], dict[str, list[int]]]) -> None:
    """FLOPs, bytes and seconds of all ranks' kernels are those of the graph."""
    graph, traces, _ = traced
    flops = seconds = 0.0
    kinds: Counter[str] = Counter()
    for trace in traces:
        for node in trace.nodes:
            about = _attributes(node)
            flops += about.get("num_ops", 0)
            seconds += about["duration_s"] if "num_ops" in about else 0.0
            kinds[NODE_TYPES[node.type]] += 1
    each = [(t.flops, t.seconds if t.stream == "compute" else 0.0) for t in graph.tasks]
    assert flops == pytest.approx(sum(each[t][0] for t in graph.nodes.task), rel=1e-6)
    assert seconds == pytest.approx(sum(each[t][1] for t in graph.nodes.task))
    assert kinds["COMP_NODE"] == int(np.count_nonzero(graph.nodes.rank >= 0))


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1), st.floats(allow_nan=False), st.text(max_size=20))
def test_encoder_against_protobuf(number: int, real: float, text: str) -> None:
    """Whole numbers of any sign and size, doubles and strings: byte for byte what protobuf writes."""
    attribute = METADATA().attr.add
    for name, held, ours in (
        ("int64_val", number, wire.whole(9, number)),
        ("double_val", real, wire.double(3, real)),
        ("string_val", text, wire.text(29, text)),
    ):
        theirs = attribute(name="x", **{name: held}).SerializeToString()
        assert wire.text(1, "x") + ours == theirs


@given(st.lists(st.integers(min_value=0, max_value=2**64 - 1), max_size=40))
def test_packed_against_protobuf(values: list[int]) -> None:
    """Repeated numbers are packed as protobuf packs them."""
    assert wire.packed(5, values) == NODE(data_deps=values).SerializeToString()
