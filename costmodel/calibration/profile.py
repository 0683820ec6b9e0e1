"""A user's own calibration: a few runs of theirs shift what is known of their cell.

The runs update the cell's residual (`costmodel.calibration.residual`) by Bayes' rule for a linear model: the shared
part moves as far as the runs agree and its variance allows, and what they tell shrinks the interval. Nothing is
refitted, so that five runs cannot spoil what fifteen hundred have taught. How much slower or quicker these servers are
as a whole is theirs alone: where the runs say so together, their level counts for more than what was known of it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.calibration.residual import FEATURES, TARGETS, TRIANGLE, TargetResidual, full_covariance
from costmodel.errors import InputError, Problem
from costmodel.files import read_file
from costmodel.plan.columns import Floats

SCHEMA_VERSION = 2
LEAST_RUNS = 5
MAX_PROFILE_BYTES = 10_000_000
OUTLIER = 2.5
OUTLIERS_FRAC = 0.25
VARIANCES = np.concatenate([[0.0], np.geomspace(1e-4, 4.0, 60)])
"""Variances of the log that are tried for what is the user's own: of one per cent to a factor of seven."""
VARIANCE_COST = 1.0
"""Log-likelihood that one more parameter costs (Akaike, 1974): with less to gain there is no such variance."""
VALUES = len(FEATURES) + len(TRIANGLE)
_ONE = FEATURES.index("one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileCell:
    """The posterior of one cell: per target, means and then the lower triangle of the covariance."""

    runs: int
    tpot: tuple[float, ...]
    ttft: tuple[float, ...]
    tpot_noise: float = 0.0
    """Variance of the log of one run beyond what measured runs have: the user's scatter by more."""
    ttft_noise: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Cells that a user has measured, by `costmodel.calibration.residual.own_key`."""

    cells: Mapping[str, ProfileCell]

    def values(self) -> dict[str, dict[str, tuple[float, ...]]]:
        """As `residual_columns` takes them."""
        return {
            name: {t: (*getattr(cell, t), getattr(cell, f"{t}_noise")) for t in TARGETS}
            for name, cell in self.cells.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """What runs teach of one target of a cell."""

    values: tuple[float, ...]
    """Means and lower triangle of the covariance, `VALUES` numbers."""
    noise: float
    """Variance of the log of one run beyond what measured runs have."""
    apart: tuple[int, ...]
    """Places of the runs that the others contradict, so that next to nothing was learnt from them."""


def posterior(prior: TargetResidual, phi: Floats, deployments: NDArray[np.int64], log_error: Floats) -> Posterior:
    """What runs teach of a cell.

    Servers of one user may be slower or quicker throughout than those that were measured, by more than these differ,
    and their runs may scatter by more. The variances of such a level and of such a scatter are those under which the
    runs are likeliest, none unless they gain by `VARIANCE_COST` (an empirical Bayes estimate; Efron, Large-Scale
    Inference, 2010, chapter 1). The level's is added to what is not known, the scatter's to what each run has of its
    own. Fewer runs than `LEAST_RUNS` say nothing of their scatter.

    A run that is more than `OUTLIER` standard deviations from what the others say of it, such as one whose KV cache ran
    full, gets its deviation as a standard deviation of its own, so that one cannot outvote the rest (weights as of a
    redescending M-estimator; Huber and Ronchetti, Robust Statistics, 2009, section 4.8). The furthest is dealt with
    first, as it makes others look far; at most `OUTLIERS_FRAC` of the runs are. Where the rest scatters too, it is
    not those few that are odd: the scatter is then that of all, and only who is far beyond it is an outlier.

    Args:
        prior: one row.
        phi: features of the runs, shape `(len(FEATURES), num_runs)`.
        deployments: number of each run's deployment, whose own error its runs share, shape `(num_runs,)`.
        log_error: log(measured / formula), shape `(num_runs,)`.
    """
    mean, spread = prior.mean[0], full_covariance(prior.covariance[0])
    same = deployments[:, None] == deployments[None, :]
    expected = phi.T @ spread @ phi + same * (phi.T @ (prior.own[0][:, None] * phi))
    expected[np.diag_indices_from(expected)] += prior.noise[0]
    surprise = log_error - phi.T @ mean
    own, level = _outliers(expected, surprise)
    noise = noise_of_next = 0.0
    while len(log_error) >= LEAST_RUNS:
        grown, _ = _likeliest(expected + np.diag(own), surprise, VARIANCES[noise <= VARIANCES])
        if grown == noise:
            break
        noise, noise_of_next = grown, _likeliest(expected, surprise, VARIANCES)[0]
        own, level = _outliers(expected + noise * np.eye(len(own)), surprise)
    kernel = expected + np.diag(noise + own)
    spread[_ONE, _ONE] += level
    gain = np.linalg.solve(kernel + level, phi.T @ spread).T
    moved = mean + gain @ surprise
    left = spread - gain @ phi.T @ spread
    values = (*(float(m) for m in moved), *(float(left[i, j]) for i, j in TRIANGLE))
    return Posterior(values=values, noise=noise_of_next, apart=tuple(int(i) for i in np.flatnonzero(own)))


def _outliers(kernel: Floats, surprise: Floats) -> tuple[Floats, float]:
    """Variances of their own of the runs that lie far from what the others say, else 0, and then their level's."""
    own = np.zeros(len(surprise))
    _, level = _likeliest(kernel, surprise, VARIANCES[:1])
    for _ in range(int(OUTLIERS_FRAC * len(surprise))):
        inverse = np.linalg.inv(kernel + np.diag(own) + level)
        left_out_variance = 1.0 / np.diag(inverse)
        left_out = (inverse @ surprise) * left_out_variance
        worst = int(np.argmax(left_out**2 / left_out_variance))
        if left_out[worst] ** 2 <= OUTLIER**2 * left_out_variance[worst]:
            break
        own[worst] += left_out[worst] ** 2
        _, level = _likeliest(kernel + np.diag(own), surprise, VARIANCES[:1])
    return own, level


def _likeliest(kernel: Floats, surprise: Floats, noises: Floats) -> tuple[float, float]:
    """The variances under which `surprise` is likeliest, beside `kernel`: of each run for itself, one of `noises`, and
    of a level that all runs share.
    """
    roots, vectors = np.linalg.eigh(kernel)
    ones, told = vectors.sum(axis=0), vectors.T @ surprise
    by_run = 1.0 / (roots + noises[:, None])
    precision, sums = (ones**2 * by_run).sum(axis=1)[:, None], (ones * told * by_run).sum(axis=1)[:, None]
    apart = 0.5 * (np.log(by_run) - told**2 * by_run).sum(axis=1)[:, None]
    # determinant and inverse of a matrix and one of rank 1 (Sherman and Morrison)
    shrunk = 1.0 + VARIANCES * precision
    together = 0.5 * (VARIANCES * sums**2 / shrunk - np.log(shrunk))
    cost = VARIANCE_COST * ((noises[:, None] > 0.0) * 1.0 + (VARIANCES > 0.0))
    noise, level = np.unravel_index(np.argmax(apart + together - cost), together.shape)
    return float(noises[noise]), float(VARIANCES[level])


def profile_text(profile: Profile) -> str:
    """The profile as TOML."""
    lines = [
        '# Written by `autotune calibrate`; name it in a study as calibration = "…".',
        f"schema_version = {SCHEMA_VERSION}",
    ]
    for name, cell in sorted(profile.cells.items()):
        lines += ["", f"[cells.{_toml_key(name)}]", f"runs = {cell.runs}"]
        lines += [f"{t} = {json.dumps([float(f'{v:.6g}') for v in getattr(cell, t)])}" for t in TARGETS]
        noises = {t: getattr(cell, f"{t}_noise") for t in TARGETS}
        lines += [f"{t}_noise = {float(f'{noise:.6g}')}" for t, noise in noises.items() if noise > 0.0]
    return "\n".join(lines) + "\n"


def _toml_key(name: str) -> str:
    """A quoted key: JSON's string, but TOML knows no halves of characters and wants DEL as an escape."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        InputError: not readable, not TOML, or not a profile; every problem with its path.
    """
    try:
        raw = tomllib.loads(read_file(path, MAX_PROFILE_BYTES).decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError.single(str(path), f"is not a calibration profile: {error}") from error
    problems: list[Problem] = []
    if raw.get("schema_version") != SCHEMA_VERSION:
        found = raw.get("schema_version")
        earlier = ": run `autotune calibrate` anew, its calibration is another one" if found == 1 else ""
        message = f"must be {SCHEMA_VERSION}, got {found!r}{earlier}"
        problems.append(Problem(path=f"{path}:schema_version", message=message))
    cells = raw.get("cells")
    read = {}
    for name, cell in (cells if isinstance(cells, dict) else {}).items():
        try:
            read[name] = _read_cell(cell)
        except ValueError as error:
            problems.append(Problem(path=f"{path}:cells.{name}", message=str(error)))
    if not read and not problems:
        problems.append(Problem(path=f"{path}:cells", message="must hold at least one cell, got none"))
    if problems:
        raise InputError(problems)
    return Profile(cells=read)


def _read_cell(cell: Any) -> ProfileCell:
    if not isinstance(cell, dict) or not isinstance(cell.get("runs"), int):
        raise ValueError("must be a table with runs, tpot and ttft")
    values: dict[str, tuple[float, ...]] = {}
    for target in TARGETS:
        found = cell.get(target)
        numbers = isinstance(found, list) and all(isinstance(v, (int, float)) for v in found)
        if not numbers or len(found or ()) != VALUES or not np.isfinite(found or ()).all():
            raise ValueError(f"{target} must be {VALUES} finite numbers")
        values[target] = tuple(float(v) for v in found or ())
        roots = np.linalg.eigvalsh(full_covariance(np.array(values[target][len(FEATURES) :])))
        if roots.min() < -1e-6 * max(float(roots.max()), 1.0):
            raise ValueError(f"{target} must hold a covariance, got one with negative variance")
    noises = {t: cell.get(f"{t}_noise", 0.0) for t in TARGETS}
    for target, noise in noises.items():
        if not isinstance(noise, (int, float)) or isinstance(noise, bool) or not 0.0 <= noise < np.inf:
            raise ValueError(f"{target}_noise must be a variance, got {noise!r}")
    return ProfileCell(
        runs=cell["runs"],
        tpot=values["tpot"],
        ttft=values["ttft"],
        tpot_noise=float(noises["tpot"]),
        ttft_noise=float(noises["ttft"]),
    )
