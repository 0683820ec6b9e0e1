"""False switches on stationary traffic: `python -m benchmarks.stationary STUDY TRACE.csv [--seeds 100]`.

Each seed draws requests of a trace with replacement, and arrivals of a Poisson process at its mean rate, for three hours:
traffic that by construction never changes. `retune` decides every ten minutes on the last thirty, beginning with the
best plan for the first ten. A switch is false.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from autotune.retuning.replay import Retuner
from autotune.retuning.replay_steps import Player
from autotune.retuning.replay_trace import Trace, most_per_s
from autotune.study import load_study
from autotune.traffic.read import read_traffic

HOURS_S, STEP_S, WINDOW_S = 3 * 3600.0, 600.0, 1800.0


def main() -> None:
    """Print the rate of false switches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("trace")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--load", type=float, default=0.9)
    given = parser.parse_args()
    study, log = load_study(Path(given.study)), read_traffic(given.trace)
    if log.columns is None or log.refusal is not None:
        raise SystemExit(f"{given.trace}: {log.refusal}")
    profile = log.profile()
    rate = profile.rate.mean_per_s
    scale = given.load * most_per_s(study, log.source, profile) / rate
    start, decisions, switches, switched, tuned = time.perf_counter(), 0, 0, 0, 0
    for seed in range(given.seeds):
        random = np.random.default_rng(seed)
        count = int(random.poisson(rate * HOURS_S))
        chosen = random.integers(0, log.columns.times_s.size, count)
        trace = Trace(
            names=(log.source,),
            ends_s=(HOURS_S,),
            times_s=np.sort(random.random(count)) * HOURS_S,
            prompt=log.columns.prompt[chosen].astype(np.float64),
            output=log.columns.output[chosen].astype(np.float64),
            each=np.full(count, scale),
        )
        player = Player(study, trace, step_s=STEP_S, window_s=WINDOW_S)
        first = player.best(0.0, STEP_S)
        if first is None:
            raise SystemExit("the first step holds too little traffic")
        retuner = Retuner(player, first, known=True)
        for at_s in player.starts[1:]:
            retuner.decide(at_s)
            decisions += 1
        switches += len(retuner.history)
        switched += bool(retuner.history)
        tuned += retuner.tuned
    print(
        f"{study.name}, {Path(given.trace).name}: {given.seeds} seeds, {decisions:,} decisions, {tuned} of them tuned, "
        f"{switches} switches in {switched} seeds ({switched / given.seeds:.1%}), {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
