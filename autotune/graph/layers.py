"""What follows what inside a layer: the operators of the cost model as a small data-flow graph per layer kind.

The cost model books the operators of a layer one after the other, without overlap, as its calibration was fitted.
So the shared experts, which no token exchange waits for, come before it all the same: an edge of order, not of data.
"""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.arch.attention import AttentionKind
from costmodel.arch.ffn import FfnKind
from costmodel.step.attention_cores import DECODE_CORE, INDEXER, PROMPT_CORE

LAYER_INPUT = ""
"""Stands for what the layer before hands over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An operator and the operators of its layer that it waits for; those that a model lacks are passed over."""

    name: str
    after: tuple[str, ...]
    scope: str = "active"
    """`active`: each rank that has tokens; `all`: each rank of the stage; `tp`, `stage`: a collective over that."""
    order_after: tuple[str, ...] = ()
    """Operators that the engine runs before, though nothing flows from them."""
    collective: str = ""


_SEEN_BY_CORE = (
    "qkv_proj",
    "qkv_a_proj",
    "q_b_proj",
    "kv_b_proj",
    "compress_proj",
    "in_proj",
    "gate_b_proj",
    "dt_proj",
    INDEXER,
)

ATTENTION = (
    Step(name="norms", after=(LAYER_INPUT,)),
    Step(name="qkv_proj", after=("norms",)),
    Step(name="qkv_a_proj", after=("norms",)),
    Step(name="in_proj", after=("norms",)),
    Step(name="q_b_proj", after=("qkv_a_proj",)),
    Step(name="kv_b_proj", after=("qkv_a_proj",)),
    Step(name="index_q_proj", after=("qkv_a_proj",)),
    Step(name="index_k_proj", after=("norms",)),
    Step(name="index_proj", after=("norms",)),
    Step(name="compress_proj", after=("norms",)),
    Step(name="gate_a_proj", after=("norms",)),
    Step(name="gate_b_proj", after=("gate_a_proj",)),
    Step(name="x_proj", after=("in_proj",)),
    Step(name="dt_proj", after=("x_proj",)),
    Step(name=INDEXER, after=("index_q_proj", "index_k_proj", "index_proj", "compress_proj")),
    Step(name=PROMPT_CORE, after=_SEEN_BY_CORE),
    Step(name=DECODE_CORE, after=_SEEN_BY_CORE),
    Step(name="o_a_proj", after=(PROMPT_CORE, DECODE_CORE)),
    Step(name="o_proj", after=(PROMPT_CORE, DECODE_CORE, "o_a_proj")),
    Step(name="tp_all_reduce", after=("o_proj",), scope="tp", collective="all_reduce"),
)
DENSE = (
    Step(name="norms", after=(LAYER_INPUT,)),
    Step(name="up_proj", after=(LAYER_INPUT, "norms")),
    Step(name="down_proj", after=("up_proj",)),
    Step(name="tp_all_reduce", after=("down_proj",), scope="tp", collective="all_reduce"),
    Step(name="side_gate_proj", after=("tp_all_reduce", "down_proj")),
    Step(name="side_proj", after=("side_gate_proj",)),
)
_BEFORE_EXPERTS, _AFTER_EXPERTS = ("dp_gather", "ep_dispatch"), ("experts",)
MOE = (
    Step(name="norms", after=(LAYER_INPUT,)),
    Step(name="router", after=(LAYER_INPUT, "norms")),
    Step(name="latent_down_proj", after=(LAYER_INPUT, "norms")),
    Step(name="up_proj", after=(LAYER_INPUT, "norms")),
    Step(name="down_proj", after=("up_proj",)),
    Step(name="dp_gather", after=("router",), scope="stage", order_after=("down_proj",), collective="all_gather"),
    Step(name="ep_dispatch", after=("router",), scope="stage", order_after=("down_proj",), collective="all_to_all"),
    Step(
        name="experts", after=("router", "latent_down_proj", *_BEFORE_EXPERTS), scope="all", order_after=("down_proj",)
    ),
    Step(name="dp_scatter", after=_AFTER_EXPERTS, scope="stage", collective="reduce_scatter"),
    Step(name="ep_combine", after=_AFTER_EXPERTS, scope="stage", collective="all_to_all"),
    Step(name="moe_all_reduce", after=(*_AFTER_EXPERTS, "down_proj"), scope="stage", collective="all_reduce"),
    Step(name="latent_up_proj", after=(*_AFTER_EXPERTS, "dp_scatter", "ep_combine", "moe_all_reduce")),
)
HEAD = (Step(name="lm_head", after=(LAYER_INPUT,)),)

STEPS: dict[str, tuple[Step, ...]] = {kind.value: ATTENTION for kind in AttentionKind}
"""By kind of block, whose layers' groups are named after it."""
STEPS |= {FfnKind.DENSE.value: DENSE, FfnKind.MOE.value: MOE, "head": HEAD}
