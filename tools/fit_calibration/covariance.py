"""Covariances of runs that only those of a block share, beside a few functions that all runs share.

With blocks in the matrix B and the shared functions in the columns of F, drawn with variances S, the covariance is
K = B + F S F'. Its inverse and determinant follow from those of the blocks (Woodbury's identity), in a hundredth of the
time that one large matrix takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inverse:
    """The inverse of K."""

    blocks: tuple[Ints, ...]
    """Rows of each block."""
    of_blocks: tuple[Floats, ...]
    """Inverses of B's blocks."""
    shared: Floats
    """F, shape `(num_runs, num_shared)`."""
    solved: Floats
    """B^-1 F."""
    core: Floats
    """(S^-1 + F' B^-1 F)^-1."""
    log_determinant: float
    """Of K."""

    def times(self, values: Floats) -> Floats:
        """K^-1 times a vector, or the columns of a matrix."""
        out = np.empty_like(values)
        for rows, inverse in zip(self.blocks, self.of_blocks, strict=True):
            out[rows] = inverse @ values[rows]
        return np.asarray(out - self.solved @ (self.core @ (self.solved.T @ values)))

    def block(self, index: int) -> Floats:
        """K^-1 within a block."""
        here = self.solved[self.blocks[index]]
        return np.asarray(self.of_blocks[index] - here @ self.core @ here.T)

    @property
    def diagonal(self) -> Floats:
        """Of K^-1, shape `(num_runs,)`."""
        out = -np.einsum("ij,jk,ik->i", self.solved, self.core, self.solved)
        for rows, inverse in zip(self.blocks, self.of_blocks, strict=True):
            out[rows] += np.diag(inverse)
        return np.asarray(out)

    @property
    def of_shared(self) -> Floats:
        """Diagonal of F' K^-1 F, shape `(num_shared,)`."""
        whole = self.shared.T @ self.solved
        return np.asarray(np.diag(whole) - np.einsum("ij,jk,ik->i", whole, self.core, whole))


@dataclass(frozen=True, slots=True, kw_only=True)
class Covariance:
    """What the covariance of runs is made of."""

    blocks: tuple[Ints, ...]
    kernels: tuple[Floats, ...]
    """Of each block: a matrix for each variance, shape `(num_terms, rows, rows)`."""
    shared: Floats

    def inverse(self, variances: Floats, shared_variances: Floats, noise: Floats) -> Inverse:
        """Of K where the terms have such variances, and each run has `noise` of its own, shape `(num_runs,)`."""
        found: list[Floats] = []
        log_determinant = 0.0
        for rows, kernels in zip(self.blocks, self.kernels, strict=True):
            block = np.tensordot(variances, kernels, 1) + np.diag(noise[rows])
            log_determinant += 2.0 * float(np.log(np.diag(np.linalg.cholesky(block))).sum())
            found.append(np.linalg.inv(block))
        solved = np.empty_like(self.shared)
        for rows, inverse in zip(self.blocks, found, strict=True):
            solved[rows] = inverse @ self.shared[rows]
        inner = self.shared.T @ solved
        log_determinant += float(np.linalg.slogdet(np.eye(len(inner)) + shared_variances[:, None] * inner)[1])
        return Inverse(
            blocks=self.blocks,
            of_blocks=tuple(found),
            shared=self.shared,
            solved=solved,
            core=np.linalg.inv(np.diag(1.0 / shared_variances) + inner),
            log_determinant=log_determinant,
        )

    def slopes(self, inverse: Inverse, weights: Floats) -> tuple[Floats, Floats]:
        """Of log det K - y' K^-1 y with respect to the terms' variances and to the shared ones; `weights`: K^-1 y."""
        of_terms = np.zeros(len(self.kernels[0]))
        for i, (rows, kernels) in enumerate(zip(self.blocks, self.kernels, strict=True)):
            gap = inverse.block(i) - np.outer(weights[rows], weights[rows])
            of_terms += kernels.reshape(len(kernels), -1) @ gap.ravel()
        return of_terms, inverse.of_shared - (self.shared.T @ weights) ** 2


def blocks_of(codes: Ints) -> tuple[Ints, ...]:
    """Rows of each code, in the order of the codes."""
    return tuple(np.flatnonzero(codes == code) for code in np.unique(codes))


def stacked(kernels: Sequence[Floats], size: int) -> Floats:
    """Matrices of a block in one array, also where there are none."""
    return np.stack(kernels) if kernels else np.zeros((0, size, size))
