"""What an objective is given beside the model and the rows of x."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast.models.context import Context

__all__ = ["Step"]


@dataclass(frozen=True)
class Step:
    """One training step, or one batch of the validation: its random numbers and what it is of.

    All that an objective draws comes from here, so that a run repeats itself and an interrupted
    one goes on with the numbers that it would have had.

    Args:
        generator: the run's, on the CPU.
        rows: N, training rows in all, of which x is a batch.
        context: of the rows of x, for a conditional VAE.
        training: False where the validation loss is taken; the noise is then the same every time.
    """

    generator: torch.Generator
    rows: int
    context: Context = None
    training: bool = True

    def normal(self, like: Tensor) -> Tensor:
        """N(0, 1), of the shape, dtype and device of ``like``."""
        drawn = torch.randn(like.shape, generator=self.generator, dtype=like.dtype, device="cpu")
        return drawn.to(like.device)

    def uniform(self, like: Tensor) -> Tensor:
        """U[0, 1), of the shape, dtype and device of ``like``."""
        drawn = torch.rand(like.shape, generator=self.generator, dtype=like.dtype, device="cpu")
        return drawn.to(like.device)

    def permutation(self, like: Tensor) -> Tensor:
        """An order of the rows of ``like``, int64 [n] on its device."""
        order = torch.randperm(len(like), generator=self.generator, device="cpu")
        return order.to(like.device)
