"""What a server is started with beside its plan: how many sequences, how much memory, graphs, drafts, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import OptionReader
from autotune.engines.quantisations import is_priced
from costmodel.arch import Arch
from costmodel.errors import InputError

QUANTIZATION = "quantization"
"""Option of vLLM and SGLang that names how weights are quantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What the commands of a server say, of two pools those of decode."""

    max_num_seqs: int | None
    """Per attention-DP rank, the version's default included; None: the engine finds it."""
    memory_fraction: float | None
    """As the engine's option has it; None: it is not given."""
    cuda_graphs: bool
    """Whether decode steps are replayed as graphs."""
    drafts: str
    """How it is told to draft tokens, as it was written; empty: it drafts none."""
    not_priced: tuple[str, ...]
    """What no formula knows, as it was written."""

    def of_pools(self, prefill: Started, memory: str) -> Started:
        """Of two pools, this one's decode: what the other is started with besides is not priced.

        `memory` is the engine's option for its share.
        """
        own = self.not_priced
        if prefill.memory_fraction not in (None, self.memory_fraction):
            own = (*own, f"{memory} {prefill.memory_fraction:g} of the prefill pool")
        if self.cuda_graphs and not prefill.cuda_graphs:
            own = (*own, "no CUDA graphs of the prefill pool")
        own = (*own, *(f"{text} of the prefill pool" for text in prefill.not_priced if text not in self.not_priced))
        return replace(self, not_priced=own)


def started_of(
    options: OptionReader, knobs: Mapping[str, Any], arch: Arch | None, checkpoint_dtype: str | None
) -> Started:
    """What a command says, of which `knobs` were read (`knobs_of`).

    `checkpoint_dtype`: in which it stores its weights where that is not as `arch` has it.

    Raises:
        InputError: it starts a server that generates nothing.
    """
    engine, command = ENGINES[options.command.engine], options.command
    if nothing := engine.start_options.generates_nothing(command):
        message = f"must start a server that generates tokens: with {' and '.join(nothing)} it generates none"
        raise InputError.single("FILE|COMMAND", message)
    told, said = engine.start_options, any(options.text(name) is not None for name in engine.memory_options)
    return Started(
        max_num_seqs=knobs["max_num_seqs"],
        memory_fraction=knobs["memory_fraction"] if said else None,
        cuda_graphs=told.captures_graphs(command),
        drafts=told.drafts(command),
        not_priced=(*_weights(options, arch, checkpoint_dtype), *told.left_out(command)),
    )


def _weights(options: OptionReader, arch: Arch | None, checkpoint_dtype: str | None) -> tuple[str, ...]:
    """The quantisation that it is told, where its weights are then not those that are priced."""
    method, made = options.text(QUANTIZATION), ENGINES[options.command.engine].weight_names.values()
    if method is None or arch is None or is_priced(method, made, arch, checkpoint_dtype):
        return ()
    return (f"{options.command.options.options[QUANTIZATION].flags[0]} {method}",)
