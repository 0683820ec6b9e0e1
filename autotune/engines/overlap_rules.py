"""Two-batch overlap: which plans an engine runs as two batches per step, and what a command says of it."""

from __future__ import annotations

from autotune.engines.layout_rules import Rule
from autotune.engines.model_classes import has
from autotune.engines.option_reader import OptionReader
from costmodel.engine import EngineTraits

OVERLAP_NEEDS_EXCHANGE = Rule(
    name="two_batch_overlap_exchange",
    text="two-batch overlap hides an all-to-all between attention-DP ranks and whole experts: attn_dp and moe_ep must "
    "be above 1, moe_tp 1",
    fields=("two_batch_overlap", "attn_dp", "moe_tp", "moe_ep"),
    broken=lambda _, c: (c.two_batch_overlap > 0) & ((c.attn_dp == 1) | (c.moe_ep == 1) | (c.moe_tp > 1)),
)
"""vLLM, docs/design/dbo.md; SGLang, srt/arg_groups: with `--moe-a2a-backend none` it is refused."""
NO_TWO_BATCH_OVERLAP = Rule(
    name="two_batch_overlap_engine",
    text="the engine runs a step as one batch: two_batch_overlap must be 0",
    fields=("two_batch_overlap",),
    broken=lambda _, c: c.two_batch_overlap > 0,
)


def two_batch_overlap_class(engine: str) -> Rule:
    """The rule for an engine that has classes of models whose layers it can run as two batches."""
    return Rule(
        name="two_batch_overlap_class",
        text="the engine's class of this model runs a step as one batch: two_batch_overlap must be 0",
        fields=("two_batch_overlap", "model_type"),
        broken=lambda arch, c: (c.two_batch_overlap > 0) & (not has(engine, "two_batch_overlap", arch, c.version)),
    )


def dual_batches(options: OptionReader, traits: EngineTraits) -> int:
    """1 with `--enable-dbo`, and a note where its thresholds are not those of `traits`, which are priced."""
    if not options.on("enable_dbo"):
        return 0
    priced = {"prefill": traits.overlap_prompt_tokens, "decode": traits.overlap_decode_tokens}
    for kind, tokens in priced.items():
        name = f"dbo_{kind}_token_threshold"
        if options.number(name, tokens, least=0) != tokens:
            options.assumptions.append(f"--{name.replace('_', '-')} is priced as {tokens}")
    return 1
