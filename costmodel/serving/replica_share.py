"""One replica's share of a load: how many requests it has, admits and decodes, and in how many batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import Columns, Floats, LayoutColumns
from costmodel.serving.load import Load
from costmodel.step.memory import Memory

LEAST_ROUNDS = 1e-3
"""Stands for no decode step at all: a request of one token ends with its prefill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaShare(Columns):
    """What one replica of each plan has to do. Arrays of shape `(num_plans,)` or `(1,)`."""

    active: Floats
    """Replicas that have a request."""
    in_flight: Floats
    """Requests at a replica, those that wait for cache included."""
    running: Floats
    """Requests that have cache and a seat."""
    rounds: Floats
    """Decode steps of a request."""
    micro_batches: Floats
    """Batches that follow each other through the pipeline's stages."""
    stages: Floats
    """Pipeline stages."""
    ranks: Floats
    """Attention-DP ranks."""
    new: Floats
    """Prompt tokens of a request that are computed."""
    cached: Floats
    """Prompt tokens of a request that are not."""
    context: Floats
    """Tokens that a decoding sequence attends to, mean."""

    @property
    def cells(self) -> Floats:
        """Parts that the decoding sequences fall into: a rank's of a micro-batch."""
        return self.micro_batches * self.ranks


def admitted(layout: LayoutColumns, load: Load, memory: Memory) -> Floats:
    """Requests of a replica that its cache and seats hold, at least one per attention rank; shape `(num_plans,)`."""
    return np.maximum(np.minimum(memory.sequences_per_rank, load.max_num_seqs), 1.0) * layout.attn_dp


def replica_share(layout: LayoutColumns, load: Load, memory: Memory) -> ReplicaShare:
    """Divide a load over the replicas, as far as their cache and seats go."""
    concurrency = np.maximum(load.concurrency, 1.0)
    active = np.minimum(layout.replicas, concurrency)
    in_flight = concurrency / active
    running = np.minimum(in_flight, admitted(layout, load, memory))
    return ReplicaShare(
        active=active,
        in_flight=in_flight,
        running=running,
        rounds=np.maximum(load.decode_rounds, LEAST_ROUNDS),
        micro_batches=np.minimum(layout.pp, running),
        stages=layout.pp,
        ranks=layout.attn_dp,
        new=load.new_tokens,
        cached=load.isl - load.new_tokens,
        context=load.isl + load.osl / 2.0,
    )
