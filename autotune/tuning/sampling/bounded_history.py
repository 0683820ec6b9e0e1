"""What a sampler is told, and remembers: so much that a proposal takes as long after a million plans as after some.

Optuna's samplers walk over every trial of their study at each proposal. Here that is a study in memory which, whenever
it holds twice as many trials as are worth remembering, is made anew from the best ones and the newest ones. TPE takes
at most `BEST` trials for its good ones and weighs the others by age: the good ones are the same as of all trials, of
the others the oldest are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

    Trials = list[optuna.trial.FrozenTrial]

REMEMBERED = 300
"""Trials that a study is made anew from; of so many TPE takes `BEST` for good."""
BEST = 25
"""Good trials of TPE, at most: the cap of `optuna.samplers._tpe.sampler.default_gamma`."""
GENERATION = "generation"
"""How the attribute ends in which genetic samplers keep the generation of a trial."""


class Memory:
    """A sampler with the trials that it knows of."""

    def __init__(
        self,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        directions: Sequence[optuna.study.StudyDirection],
        *,
        remembered: int = REMEMBERED,
    ) -> None:
        """`sampler` makes one for the study of the given number."""
        self._sampler, self._directions, self._remembered = sampler, directions, remembered
        self._numbers = count()
        self._study = self._fresh([])

    def ask(
        self, distributions: Mapping[str, optuna.distributions.BaseDistribution]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A proposal, and the generation that it is of: an attribute of whatever is told for it."""
        import optuna

        proposal = self._study.ask(dict(distributions))
        marked = self._study.tell(proposal, state=optuna.trial.TrialState.FAIL).system_attrs
        return proposal.params, {name: value for name, value in marked.items() if name.endswith(GENERATION)}

    def tell(self, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        """Finished trials."""
        self._study.add_trials(trials)
        if len(self._study.get_trials(deepcopy=False)) > 2 * self._remembered:
            self._study = self._fresh(self._worth_remembering())

    def _fresh(self, trials: Trials) -> optuna.Study:
        import warnings

        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(directions=self._directions, sampler=self._sampler(next(self._numbers)))
        study.add_trials(trials)
        return study

    def _worth_remembering(self) -> Trials:
        """The best trials and the newest, in their order; proposals are forgotten."""
        import optuna

        done = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(self._directions) > 1 and (front := self._study.best_trials):
            best = front[-self._remembered :]
        else:
            sign = -1.0 if self._directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1.0
            # as TPE orders them: what keeps the limits by its value, then the others by how far they are off
            off = {t.number: sum(max(excess, 0.0) for excess in t.constraints.values()) for t in done}
            best = sorted(done, key=lambda t: (off[t.number], 0.0 if off[t.number] else sign * t.values[0]))[:BEST]
        kept = {t.number: t for t in best}
        for trial in reversed(done):
            if len(kept) >= self._remembered:
                break
            kept[trial.number] = trial
        return _two_generations([kept[number] for number in sorted(kept)])


def _two_generations(trials: Trials) -> Trials:
    """The trials, of which the newest generation is the second now and all before it the first.

    A genetic sampler takes the parents of the second from the first: the best of all that was there.
    """
    import optuna

    key = next((name for t in trials for name in t.system_attrs if name.endswith(GENERATION)), None)
    if key is None:
        return trials
    newest = max(t.system_attrs.get(key, 0) for t in trials)
    return [
        optuna.trial.create_trial(
            values=t.values,
            params=t.params,
            distributions=t.distributions,
            user_attrs=t.user_attrs,
            system_attrs={**t.system_attrs, key: int(t.system_attrs.get(key, 0) == newest > 0)},
        )
        for t in trials
    ]
