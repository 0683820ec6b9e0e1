"""How many sequences decode where steps as long as theirs leave as many: steps and balance, computed in turn.

What steps of `d` sequences leave of them falls with `d` or rises more slowly than it, so that one number leaves itself:
a secant in an interval finds it. A plan is done with once its number and the lengths of its steps stay as they are, and
is left as it is from then on: what it comes to is the same whatever plans are beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from costmodel.plan.columns import Bools, Columns, Floats, Ints
from costmodel.plan.stages import StageTable
from costmodel.serving.load import Load
from costmodel.serving.replica_share import ReplicaShare
from costmodel.step.pipeline_pass import EngineColumns
from costmodel.step.step_inputs import Machine

SETTLED_REL = 1e-7
"""What is left differs by no more from what was tried, as a share of it."""
ALIKE_REL = 1e-5
"""Steps differ by no more in length from those that they were derived from, as a share."""
STEEPEST = 0.9
"""The most that the next number of decoding sequences is taken to rise with the last."""
TELLING_REL = 1e-3
"""Steps that differ by more in length from those that they were derived from do not bound the answer."""
HALVED_FROM, JUMP_REL = 6, 1e-2
"""From this round on, where so much is off and the last secant has not halved it, what is left may jump: steps are made
again until their lengths are known, and then of a number halfway between the last and what it left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """Plans and what is asked of them, from which their steps follow."""

    machine: Machine
    stages: StageTable
    engine: EngineColumns
    load: Load
    share: ReplicaShare
    front_s: Floats
    """What a request spends in the front end."""

    def slice(self, part: Ints) -> Plant:
        """Some of the plans."""
        return Plant(
            machine=self.machine.slice(part),
            stages=self.stages.slice(part),
            engine=self.engine.slice(part),
            load=self.load.slice(part),
            share=self.share.slice(part),
            front_s=self.front_s if self.front_s.shape[0] == 1 else self.front_s[part],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling(Columns):
    """Where a search for the sequences that decode is. Arrays of shape `(num_plans,)`."""

    tried: Floats
    """The number to make steps of."""
    base_s: Floats
    """Length of a step without prompts as it was last found; NaN: steps are taken to be alike."""
    with_prompts_s: Floats
    """The same of a step with prompts."""
    waiting: Floats
    """Prompts of a replica that wait for prefill or are in it."""
    low: Floats
    """Steps of so few leave more."""
    high: Floats
    """Steps of so many leave no more."""
    before: Floats
    """The number that was tried before; NaN where there was none."""
    left_before: Floats
    """What it left."""
    done: Bools
    """Of which plans steps and sequences fit each other."""

    @classmethod
    def of(cls, most: Floats) -> Self:
        """Begin with the most that can decode."""
        none = np.full_like(most, np.nan)
        return cls(
            tried=most,
            base_s=none,
            with_prompts_s=none,
            waiting=np.zeros_like(most),
            low=np.zeros_like(most),
            high=most,
            before=none,
            left_before=none,
            done=np.zeros(most.shape, dtype=bool),
        )

    def after(self, left: Floats, base_s: Floats, with_prompts_s: Floats, waiting: Floats, turn: int) -> Self:
        """Go on after a round.

        Args:
            left: sequences that steps of those that were tried leave.
            base_s: length of these steps without prompts.
            with_prompts_s: the same with prompts.
            waiting: prompts that wait for prefill or are in it.
            turn: how many rounds there were, this one included.
        """
        apart = [_apart(base_s, self.base_s), _apart(with_prompts_s, self.with_prompts_s)]
        apart_rel = np.maximum(*apart)
        more, told = left > self.tried, apart_rel <= TELLING_REL
        low, high = np.where(more & told, self.tried, self.low), np.where(more | ~told, self.high, self.tried)
        step = self.tried - self.before
        slope = (left - self.left_before) / np.where(step == 0.0, np.nan, step)
        # what is left rises with what decodes where prompts are few: a slope of 1 would never meet
        slope = np.minimum(np.where(np.isnan(slope), 0.0, slope), STEEPEST)
        tried = np.minimum(np.maximum(self.tried + (left - self.tried) / (1.0 - slope), low), high)
        off, off_before = np.abs(left - self.tried), np.abs(self.left_before - self.before)
        halve = (turn >= HALVED_FROM) & (off > np.maximum(0.5 * off_before, JUMP_REL * self.tried))
        # what falls with the number tried meets it between the two, once the lengths of its steps are known
        nearer = 0.5 * (np.clip(self.tried, low, high) + np.clip(left, low, high))
        again = halve & ~told
        tried = np.where(again, self.tried, np.where(halve, nearer, tried))
        met = (off <= SETTLED_REL * self.tried) & (apart_rel <= ALIKE_REL)
        done = self.done | met | (high - low <= SETTLED_REL * high)
        after = Settling(
            tried=tried,
            base_s=base_s,
            with_prompts_s=with_prompts_s,
            waiting=waiting,
            low=low,
            high=high,
            before=np.where(again, self.before, self.tried),
            left_before=np.where(again, self.left_before, left),
            done=done,
        )
        return type(self)(
            **{name: np.where(done, getattr(self, name), getattr(after, name)) for name in self._names()}
            | {"done": done}
        )

    def put(self, rows: Ints, part: Settling) -> Self:
        """With other values for some of the plans."""
        out = {name: getattr(self, name).copy() for name in self._names()}
        for name, values in out.items():
            values[rows] = getattr(part, name)
        return type(self)(**out)


def _apart(new: Floats, old: Floats) -> Floats:
    """Relative difference; infinite where there is no old value."""
    return np.where(np.isnan(old), np.inf, np.abs(new - old) / np.maximum(new, 1e-300))
