"""What a few runs of a user are worth: cells of models left out of the fit, before and after eight of their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from costmodel.calibration.measured_cells import own_key
from costmodel.calibration.profile import posterior
from costmodel.calibration.residual import FEATURES, TARGETS, TargetResidual
from costmodel.measured.learn_profile import run_situation
from costmodel.measured.runs import Run
from costmodel.plan.columns import Floats
from costmodel.plan.layout import Layout
from tools.fit_calibration.covariance import Ints
from tools.fit_calibration.residual import ResidualFit, place_of

TAUGHT = 8
DRAWS = 10
"""Choices of the eight per cell, whose errors are averaged."""
LEAST_MEMBERS = 20
"""Cells with fewer runs leave too few to be judged by."""


class TaughtScore:
    """Collects, fold by fold, the error of cells' other runs with and without eight runs of the cell."""

    def __init__(self, runs: Sequence[Run], seed: int) -> None:
        self._runs = runs
        self._phi = run_situation(runs).phi
        self._measured = {t: np.array([getattr(r, f"{t}_s") for r in runs]) for t in TARGETS}
        self._random = np.random.default_rng(seed)
        self._before: dict[str, list[float]] = {t: [] for t in TARGETS}
        self._after: dict[str, list[float]] = {t: [] for t in TARGETS}

    def add(self, test: Ints, formula: Mapping[str, Floats], of: Mapping[str, tuple[ResidualFit, Ints]]) -> None:
        """One fold: `formula` is the estimate of all runs from parameters fitted without `test`; `of` holds by target
        the model of its errors, and the runs that teach it.
        """
        cells: dict[tuple[str, str], list[int]] = {}
        for i in test:
            run = self._runs[i]
            if all(np.isfinite(self._measured[t][i]) for t in TARGETS):
                # a user's runs are of one version
                key = own_key(run.engine, run.entry.cluster.gpu.name, run.entry.arch)
                cells.setdefault((key, run.engine_version), []).append(int(i))
        for members in cells.values():
            if len(members) < LEAST_MEMBERS:
                continue
            for target in TARGETS:
                prior = self._prior(*of[target], place_of(self._runs[members[0]]).network)
                self._judge(target, prior, members, formula[target])

    @staticmethod
    def _prior(model: ResidualFit, taught_by: Ints, network: str) -> TargetResidual:
        """What is known of a cell whose model was never measured."""
        values = np.array(model.far(taught_by, network))
        own, noise = model.own()
        return TargetResidual(
            mean=values[None, : len(FEATURES)],
            covariance=values[None, len(FEATURES) :],
            own=np.array([own]),
            noise=np.array([noise]),
        )

    def _judge(self, target: str, prior: TargetResidual, members: Sequence[int], formula: Floats) -> None:
        measured = self._measured[target]
        before, after = [], []
        for _ in range(DRAWS):
            order = np.array(members)[self._random.permutation(len(members))]
            taught, rest = order[:TAUGHT], order[TAUGHT:]
            layouts: dict[Layout, int] = {}
            deployments = np.array([layouts.setdefault(self._runs[i].entry.layout, len(layouts)) for i in taught])
            learnt = posterior(
                prior, self._phi[:, taught], deployments, np.log(measured[taught] / formula[taught])
            ).values
            for errors, means in ((before, prior.mean[0]), (after, np.array(learnt[: len(FEATURES)]))):
                moved = np.exp(self._phi[:, rest].T @ means)
                errors.append(np.mean(np.abs(formula[rest] * moved / measured[rest] - 1.0)))
        self._before[target].append(float(np.mean(before)))
        self._after[target].append(float(np.mean(after)))

    def document(self) -> dict[str, float]:
        """Mean over cells of the errors, and by how much eight runs lower them."""
        out: dict[str, float] = {"cells": len(self._before["tpot"])}
        for target in TARGETS:
            before, after = float(np.mean(self._before[target])), float(np.mean(self._after[target]))
            out |= {
                f"{target}_before": float(f"{before:.4g}"),
                f"{target}_after": float(f"{after:.4g}"),
                f"{target}_lowered": float(f"{1.0 - after / before:.4g}"),
            }
        return out
