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
LEVEL_VARIANCES = np.concatenate([[0.0], np.geomspace(1e-4, 4.0, 60)])
"""Variances of the log that are tried for a level of the user's own: of one per cent to a factor of seven."""
LEVEL_COST = 1.0
"""Log-likelihood that one more parameter costs (Akaike, 1974): with less to gain there is no level of their own."""
VALUES = len(FEATURES) + len(TRIANGLE)
_ONE = FEATURES.index("one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileCell:
    """The posterior of one cell: per target, means and then the lower triangle of the covariance."""

    runs: int
    tpot: tuple[float, ...]
    ttft: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Cells that a user has measured, by `costmodel.calibration.residual.own_key`."""

    cells: Mapping[str, ProfileCell]

    def values(self) -> dict[str, dict[str, tuple[float, ...]]]:
        """As `residual_columns` takes them."""
        return {name: {t: getattr(cell, t) for t in TARGETS} for name, cell in self.cells.items()}


def posterior(
    prior: TargetResidual, phi: Floats, deployments: NDArray[np.int64], log_error: Floats
) -> tuple[float, ...]:
    """What runs teach of a cell.

    Servers of one user may be slower or quicker throughout than those that were measured, by more than these differ.
    The variance of such a level is the one under which the runs are likeliest, none unless they gain by `LEVEL_COST`
    (an empirical Bayes estimate; Efron, Large-Scale Inference, 2010, chapter 1), and is added to what is not known.

    A run that is more than `OUTLIER` standard deviations from what the others say of it, such as one whose KV cache ran
    full, gets its deviation as a standard deviation of its own, so that one cannot outvote the rest (weights as of a
    redescending M-estimator; Huber and Ronchetti, Robust Statistics, 2009, section 4.8). The furthest is dealt with
    first, as it makes others look far; at most `OUTLIERS_FRAC` of the runs are.

    Args:
        prior: one row.
        phi: features of the runs, shape `(len(FEATURES), num_runs)`.
        deployments: number of each run's deployment, whose own error its runs share, shape `(num_runs,)`.
        log_error: log(measured / formula), shape `(num_runs,)`.

    Returns:
        Means and lower triangle of the covariance, `VALUES` numbers.
    """
    mean, spread = prior.mean[0], full_covariance(prior.covariance[0])
    same = deployments[:, None] == deployments[None, :]
    kernel = phi.T @ spread @ phi + same * (phi.T @ (prior.own[0][:, None] * phi))
    kernel[np.diag_indices_from(kernel)] += prior.noise[0]
    surprise = log_error - phi.T @ mean
    level = _level_variance(kernel, surprise)
    for _ in range(int(OUTLIERS_FRAC * len(log_error))):
        inverse = np.linalg.inv(kernel + level)
        left_out_variance = 1.0 / np.diag(inverse)
        left_out = (inverse @ surprise) * left_out_variance
        worst = int(np.argmax(left_out**2 / left_out_variance))
        if left_out[worst] ** 2 <= OUTLIER**2 * left_out_variance[worst]:
            break
        kernel[worst, worst] += left_out[worst] ** 2
        level = _level_variance(kernel, surprise)
    spread[_ONE, _ONE] += level
    gain = np.linalg.solve(kernel + level, phi.T @ spread).T
    moved = mean + gain @ surprise
    left = spread - gain @ phi.T @ spread
    return (*(float(m) for m in moved), *(float(left[i, j]) for i, j in TRIANGLE))


def _level_variance(kernel: Floats, surprise: Floats) -> float:
    """The variance of a level that all runs share, beside `kernel`, under which `surprise` is likeliest."""
    by_kernel = np.linalg.solve(kernel, np.stack([np.ones(len(surprise)), surprise], axis=1))
    precision, told = by_kernel[:, 0].sum(), by_kernel[:, 1].sum()
    # determinant and inverse of a matrix and one of rank 1 (Sherman and Morrison)
    shrunk = 1.0 + LEVEL_VARIANCES * precision
    gained = 0.5 * (LEVEL_VARIANCES * told**2 / shrunk - np.log(shrunk)) - LEVEL_COST * (LEVEL_VARIANCES > 0.0)
    return float(LEVEL_VARIANCES[np.argmax(gained)])


def profile_text(profile: Profile) -> str:
    """The profile as TOML."""
    lines = [
        '# Written by `autotune calibrate`; name it in a study as calibration = "…".',
        f"schema_version = {SCHEMA_VERSION}",
    ]
    for name, cell in sorted(profile.cells.items()):
        lines += ["", f"[cells.{_toml_key(name)}]", f"runs = {cell.runs}"]
        lines += [f"{t} = {json.dumps([float(f'{v:.6g}') for v in getattr(cell, t)])}" for t in TARGETS]
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
    return ProfileCell(runs=cell["runs"], tpot=values["tpot"], ttft=values["ttft"])
