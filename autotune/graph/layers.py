"""What follows what inside a layer: the operators of the cost model as a small data-flow graph per layer kind.

The cost model books the operators of a layer one after the other, without overlap, as its calibration was fitted.
So the shared experts, which no token exchange waits for, come before it all the same: an edge of order, not of data.
"""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.step.operators import DECODE_CORE, INDEXER, PROMPT_CORE

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


_SEEN_BY_CORE = ("qkv_proj", "qkv_a_proj", "q_b_proj", "kv_b_proj", "in_proj", INDEXER)

ATTENTION = (
    Step(name="norms", after=(LAYER_INPUT,)),
    Step(name="qkv_proj", after=("norms",)),
    Step(name="qkv_a_proj", after=("norms",)),
    Step(name="in_proj", after=("norms",)),
    Step(name="q_b_proj", after=("qkv_a_proj",)),
    Step(name="kv_b_proj", after=("qkv_a_proj",)),
    Step(name="index_q_proj", after=("qkv_a_proj",)),
    Step(name="index_k_proj", after=("norms",)),
    Step(name=INDEXER, after=("index_q_proj", "index_k_proj")),
    Step(name=PROMPT_CORE, after=_SEEN_BY_CORE),
    Step(name=DECODE_CORE, after=_SEEN_BY_CORE),
    Step(name="o_proj", after=(PROMPT_CORE, DECODE_CORE)),
    Step(name="tp_all_reduce", after=("o_proj",), scope="tp", collective="all_reduce"),
)
DENSE = (
    Step(name="up_proj", after=(LAYER_INPUT,)),
    Step(name="down_proj", after=("up_proj",)),
    Step(name="tp_all_reduce", after=("down_proj",), scope="tp", collective="all_reduce"),
)
_BEFORE_EXPERTS, _AFTER_EXPERTS = ("dp_gather", "ep_dispatch"), ("experts",)
MOE = (
    Step(name="router", after=(LAYER_INPUT,)),
    Step(name="up_proj", after=(LAYER_INPUT,)),
    Step(name="down_proj", after=("up_proj",)),
    Step(name="dp_gather", after=("router",), scope="stage", order_after=("down_proj",), collective="all_gather"),
    Step(name="ep_dispatch", after=("router",), scope="stage", order_after=("down_proj",), collective="all_to_all"),
    Step(name="experts", after=("router", *_BEFORE_EXPERTS), scope="all", order_after=("down_proj",)),
    Step(name="dp_scatter", after=_AFTER_EXPERTS, scope="stage", collective="reduce_scatter"),
    Step(name="ep_combine", after=_AFTER_EXPERTS, scope="stage", collective="all_to_all"),
    Step(name="moe_all_reduce", after=(*_AFTER_EXPERTS, "down_proj"), scope="stage", collective="all_reduce"),
)
HEAD = (Step(name="lm_head", after=(LAYER_INPUT,)),)

STEPS = {"full": ATTENTION, "window": ATTENTION, "mla": ATTENTION, "linear": ATTENTION, "dense": DENSE, "moe": MOE}
STEPS |= {"head": HEAD}
