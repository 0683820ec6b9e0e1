"""What a sampler remembers: bounded, the best trials among it, and generations that go on."""

from __future__ import annotations

import optuna
import pytest

from autotune.study import Study
from autotune.tuning.sampling.bounded_history import BEST, REMEMBERED, Memory
from autotune.tuning.sampling.sampler import _sampler, sample
from autotune.tuning.study_space import study_space
from tests.tuning.brute import question

PLACES = {"x": optuna.distributions.IntDistribution(0, 9_999)}
MAXIMIZE, MINIMIZE = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE


def trial(number: int, *values: float, off: float = 0.0, generation: int | None = None) -> optuna.trial.FrozenTrial:
    """A finished trial, recognised by its place."""
    return optuna.trial.create_trial(
        values=list(values),
        params={"x": number},
        distributions=PLACES,
        constraints={"limits": off},
        system_attrs={} if generation is None else {"NSGAIISampler:generation": generation},
    )


def told(memory: Memory) -> list[optuna.trial.FrozenTrial]:
    """Finished trials that the sampler knows of."""
    return memory._study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))


def tpe(number: int) -> optuna.samplers.BaseSampler:
    """As the product makes it."""
    return optuna.samplers.TPESampler(seed=number, n_startup_trials=0, constant_liar=False)


def test_the_good_trials_are_those_of_the_whole_history() -> None:
    """TPE's cap holds, and after 3,000 trials the best that kept the limits are all there; the newest fill the rest."""
    from optuna.samplers._tpe.sampler import default_gamma

    assert default_gamma(REMEMBERED) == default_gamma(10**9) == BEST
    memory = Memory(tpe, [MAXIMIZE])
    values = [float((i * 7_919) % 3_001) for i in range(3_000)]
    for i in range(0, 3_000, 8):
        memory.tell([trial(j, values[j], off=float(j % 3 == 0)) for j in range(i, min(i + 8, 3_000))])
    known = {t.params["x"] for t in told(memory)}
    best = sorted((j for j in range(3_000) if j % 3), key=lambda j: -values[j])[:BEST]
    assert set(best) <= known
    assert set(range(3_000 - 250, 3_000)) <= known
    assert len(memory._study.trials) <= 2 * REMEMBERED + 8


def test_where_nothing_keeps_the_limits_the_nearest_are_remembered() -> None:
    """Then they are TPE's good ones."""
    memory = Memory(tpe, [MINIMIZE])
    for i in range(2_000):
        memory.tell([trial(i, 1.0, off=1.0 + abs(i - 40))])
    assert {40 + k for k in range(-12, 13)} <= {t.params["x"] for t in told(memory)}


def test_few_trials_are_all_remembered_in_their_order() -> None:
    """Up to twice what is remembered nothing is forgotten, proposals included."""
    memory = Memory(tpe, [MINIMIZE])
    for i in range(REMEMBERED):
        params, attrs = memory.ask(PLACES)
        assert set(params) == {"x"}
        assert attrs == {}
        memory.tell([trial(i, float(i))])
    assert [t.params["x"] for t in told(memory)] == list(range(REMEMBERED))


def test_a_front_is_remembered_and_its_generation_goes_on() -> None:
    """Of several objectives no trial of the front is lost, and the newest generation has the others as its parents."""
    memory = Memory(lambda n: optuna.samplers.NSGAIISampler(population_size=40, seed=n), [MAXIMIZE, MINIMIZE])
    for i in range(2_000):
        on_front = i < 10
        memory.tell([trial(i, float(i), float(i) if on_front else 5_000.0 - i, generation=i // 40)])
    assert set(range(10)) <= {t.params["x"] for t in told(memory)}
    generations = [t.system_attrs["NSGAIISampler:generation"] for t in told(memory)]
    assert generations == sorted(generations)
    params, attrs = memory.ask(PLACES)
    assert attrs["NSGAIISampler:generation"] >= max(generations)
    assert 0 <= params["x"] <= 9_999


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampling_beyond_what_is_remembered(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a memory of forty the whole space is still scored, each plan once, alike with the same seed."""
    search = {"sampler": sampler, "max_num_batched_tokens": [4096], "redundant_experts": [0, 2]}
    study: Study = question(engine="any", workload={"isl": 1009, "osl": 211, "concurrency": 61}, search=search)
    made: list[Memory] = []

    def small(samplers: object, directions: object) -> Memory:
        made.append(Memory(samplers, directions, remembered=40))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr("autotune.tuning.sampling.sampler.Memory", small)
    candidates = study_space(study).candidates
    runs = [[p.plan for batch in sample(study, candidates, [], budget=10_000) for p in batch] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == len(candidates) > 80
    assert next(made[0]._numbers) > 1, "the memory was never made anew"


def test_seeds_do_not_run_out() -> None:
    """The last seed there is has others after it."""
    study = question(search={"seed": 2**32 - 1})
    assert _sampler(study, 100, 5, several=False) is not None
