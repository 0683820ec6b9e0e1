"""What the cost model has to know of a serving engine: facts that change formulas, never its name.

The engines themselves stand in `autotune.engines`, a file each; whoever estimates a plan hands over the traits of the
engine that launches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

NOTHING_CAPTURED = -1
"""`EngineTraits.captured_prompt_tokens` of a server that is started without graphs."""


class CacheDtype(Enum):
    """What a server stores its KV cache in beside quantised weights, unless it is told."""

    ACTIVATIONS = "activations"
    """As the activations, in 16 bits."""
    CHECKPOINT = "checkpoint"
    """FP8 where the checkpoint asks for it, which those quantised in FP8 blocks do not."""
    FP8 = "fp8"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRule:
    """What a server keeps of a model's cache; as it stands, each layer what it looks back at, out of one memory."""

    whole_windows: bool = False
    """Layers that look back at a window keep every token."""
    window_ratio: float = 0.0
    """Tokens in a pool of the windows alone for each token in that of the other layers; 0: there is one pool."""
    state_ratio: float = 0.0
    """Memory of a pool of recurrent states over that of the other layers; 0: there is one pool."""
    states: int = 1
    """Of each recurrent layer that a running sequence takes."""


SEEN_IS_KEPT = CacheRule()
"""Also of plans of which nobody knows how they are started, as measured runs are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTraits:
    """One engine as the cost model sees it."""

    name: str
    """By which plans, files of measured runs and a user's calibration profile name the engine."""
    calibration: str
    """Engine whose calibration data (`costmodel/calibration/data`) describe it: its own name, or that of a measured
    engine that stands in for one that nobody has measured."""
    stages_strided: bool
    """Ranks are ordered attention-DP, PP, CP, TP from slowest to fastest, so that a pipeline stage is made of blocks of
    `attn_tp * attn_cp` neighbours, `pp` blocks apart. Otherwise a whole stage lies on neighbouring ranks."""
    kv_fraction_is_of_free: bool
    """The memory fraction that the engine is started with is KV cache, of what weights and activations leave free.
    Otherwise it is of the GPU's total memory, weights and activations included."""
    reserves_whole_output: bool
    """A request is admitted only with KV room for its longest output. Otherwise its room grows with its output, which
    is half of it on average."""
    prompts_ride_on_decode_steps: bool
    """Prompts are computed in chunks beside the sequences that decode. Otherwise a pass of prompts runs alone and
    decode steps wait for it."""
    captured_prompt_tokens: int
    """Steps with prompts of at most so many tokens are launched as captured graphs, as steps of decoding are; 0: such
    steps are always launched kernel by kernel; below 0 (`NOTHING_CAPTURED`): steps of decoding too."""
    overlap_prompt_tokens: int = 2
    """With two-batch overlap, tokens of a rank's step with prompts from which on it runs as two batches."""
    overlap_decode_tokens: int = 2
    """The same of a step of decoding alone."""
    quantised_cache: CacheDtype
    """Dtype of the cache of a measured run on quantised weights whose file does not say it."""
