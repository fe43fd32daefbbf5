"""A cell of the grid: what an attack and a defence leave of each reference."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["AIMS", "CLEAN", "HMC", "NONE", "OBLIVIOUS", "PUBLISHED", "Aim", "Cell"]

CLEAN, PUBLISHED = "none", "published"  # attacks, beside those of an aim
OBLIVIOUS = "oblivious"  # of the defence
NONE, HMC = "none", "hmc"  # defences


class Aim(NamedTuple):
    """What an attack wants to destroy.

    Args:
        noun: ``"image"`` or ``"class"``.
        metric: field of a :class:`Cell`, which the attack lowers.
    """

    noun: str
    metric: str

    @property
    def strongest(self) -> str:
        """The attack that takes the published attack's strongest point of each reference."""
        return f"strongest-{self.noun}"

    @property
    def oblivious(self) -> str:
        """The attack with this aim on the model alone: it knows nothing of the defence."""
        return f"{OBLIVIOUS}-{self.noun}"

    @property
    def adaptive(self) -> str:
        """The attack that goes through the defence."""
        return f"adaptive-{self.noun}"


AIMS = (Aim("image", "msssim"), Aim("class", "same"))


@dataclass(frozen=True)
class Cell:
    """What an attack and a defence leave of the references.

    Args:
        model: name.
        radius: ℓ∞, pixel scale; 0 without an attack.
        attack: ``"none"``, ``"published"``, or one of an :class:`Aim`.
        defence: ``"none"`` or ``"hmc"``.
        msssim: [B, R] float64, with the reference's reconstruction.
        same: [B, R] float64, 1 where the class predicted for the reference stays; NaN of failed. As
            published, without a defence it is predicted from a mean, with HMC from a sample.
        sampled: [B, R] float64, the same with the class of a sample either way.
        facts: plain values.
        pictures: [B, C, H, W] by name, of the first of the R.
    """

    model: str
    radius: float
    attack: str
    defence: str
    msssim: np.ndarray
    same: np.ndarray
    sampled: np.ndarray
    facts: dict[str, Any]
    pictures: dict[str, Tensor]

    @property
    def failed(self) -> int:
        """How many of the B·R are not finite."""
        return int((np.isnan(self.msssim) | np.isnan(self.same)).sum())

    def per_reference(self, metric: str) -> np.ndarray:
        """Mean over the restarts [B]; NaN where all failed."""
        values: np.ndarray = getattr(self, metric)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing
            return np.nanmean(values, axis=1)


def kept_of(metric: str, msssim: Tensor, same: Tensor) -> Tensor:
    """What an attack with this metric leaves, less where it is stronger; +∞ of failed.

    Of points that leave the class alike, the one is stronger that leaves less of the image.
    """
    kept = msssim if metric == "msssim" else same + 1e-3 * msssim
    return torch.as_tensor(kept, dtype=torch.float64, device="cpu").nan_to_num(torch.inf)
