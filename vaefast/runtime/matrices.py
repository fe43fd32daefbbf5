"""Decompositions of many small matrices: one thread works on a matrix, several on a batch.

LAPACK's own threads share one small matrix, which takes longer than one thread alone (a batch of
32×32: three times as long on two). A matrix so has the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from vaefast.runtime import openmp, threads

__all__ = ["each", "side_by_side"]

P = TypeVar("P")
T = TypeVar("T")
LARGE = 512  # rows of a matrix that is worth several threads
WORK = 1 << 21  # multiplications below which other threads do not pay


def each(function: Callable[[Tensor], T], matrices: Tensor) -> list[T]:
    """``function`` of consecutive parts of the matrices [b, m, n], in order."""
    b, m, n = matrices.shape
    if matrices.is_cuda or max(m, n) >= LARGE:
        return [function(matrices)]
    count = threads.count()
    if count == 1 or b == 1 or b * m * n * min(m, n) < WORK:
        return [_alone(function, matrices)]
    return side_by_side(function, matrices.chunk(min(b, 4 * count)))  # one may be held up


def side_by_side(function: Callable[[P], T], parts: Sequence[P]) -> list[T]:
    """``function`` of each part, in order: one thread works on a part, several on all of them."""
    with ThreadPoolExecutor(threads.count()) as pool:
        return list(pool.map(lambda part: _alone(function, part), parts))


def _alone(function: Callable[[P], T], part: P) -> T:
    with torch.no_grad(), openmp.at_most(1):
        return function(part)
