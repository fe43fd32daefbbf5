"""What is wrong with rows: why one failed, and what a row that ran cannot be trusted for."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.functional.hmc import State
from vaefast.functional.rows import finite
from vaefast.hmc.resolution import Resolution
from vaefast.models import context as conditions
from vaefast.models.context import Context
from vaefast.models.vae import VAE
from vaefast.runtime.batching import PaddedBatch
from vaefast.runtime.reasons import Reasons, listed, marked

__all__ = [
    "Origin",
    "SamplerWarning",
    "check_copies",
    "check_prior",
    "immobile",
    "say",
    "unresolved",
]

PROPOSALS = 10  # of a chain; that fewer were rejected, after a warm-up as short, says little
STUCK = "no proposal was accepted in at least one chain"
DIVERGED = "every proposal diverged in at least one chain"
OF_THE_PLACE = (
    "the model gives the same row other energies at other places of a batch; pass what differs "
    "from row to row as context=, where it keeps conditions in a buffer by position"
)
REMEDY = {
    STUCK: "pass a smaller step_size= or a longer warmup=",
    DIVERGED: "pass a smaller step_size=, a longer warmup= or an init= that is nearer",
}


class SamplerWarning(UserWarning):
    """Rows that failed, that their dtype does not resolve, or whose chains never moved."""


def check_copies(U: Tensor, batch: PaddedBatch, model: nn.Module) -> None:
    """A row that fills the empty places of its block has one energy at all of them.

    Up to half of the digits, as a library's products round by the place.

    Args:
        U: [N] of the N = size·C chains of the block.
        model: in whose dtypes the digits are.

    Raises:
        RuntimeError: the model reads something by position, such as a buffer of conditions.
    """
    if not isinstance(batch.positions, Tensor) or len(batch.positions) == batch.size:
        return
    U = U.view(batch.size, -1)
    first = U[batch.positions[0]]
    dtypes = {t.dtype for t in checks.parameters(model) if t.is_floating_point()}
    eps = max((torch.finfo(dtype).eps for dtype in dtypes), default=torch.finfo(torch.float32).eps)
    allowed = eps**0.5 * (1.0 + first.abs())
    empty = torch.ones(batch.size, dtype=torch.bool, device=U.device)
    empty[batch.positions] = False
    if bool(((U[empty] - first).abs() > allowed).any()):
        raise RuntimeError(OF_THE_PLACE)


def check_prior(vae: VAE, z: Tensor, context: Context) -> None:
    """A chain has one prior density at any place, where a caller's own says what it is.

    Args:
        z: [N, d], where the chains start.
        context: theirs.

    Raises:
        RuntimeError: as :func:`check_copies`.
    """
    z = z.masked_fill(~torch.isfinite(z), 0.0)
    there_and_back = torch.arange(len(z), device=z.device)
    there_and_back = torch.cat((there_and_back, there_and_back.flip(0)))
    given = conditions.as_keyword(conditions.rows(context, there_and_back))
    first, second = vae.log_prior(z[there_and_back], **given).detach().chunk(2)
    allowed = torch.finfo(z.dtype).eps ** 0.5 * (1.0 + first.abs())
    if bool(((first - second.flip(0)).abs() > allowed).any()):
        raise RuntimeError(OF_THE_PLACE)


class Origin(NamedTuple):
    """What the chains of B rows start from."""

    x: Tensor  # [B, *event]
    init: Tensor | None  # [B, C, d]
    inv_mass: Tensor | None  # [B, d]
    start: State  # of N = B·C chains

    def failed(self) -> Tensor:
        """[B] bool: something about the row's start is not finite."""
        good = finite(self.x) & finite(*self.start).reshape(len(self.x), -1).all(1)
        return ~good if self.inv_mass is None else ~(good & self._usable_mass())

    def causes(self) -> dict[str, Tensor]:
        """Masks [B] by what is wrong, first what brings about the others; their union failed."""
        z, U, grad = self.start
        found = {"x holds NaN or infinity": ~self._finite(self.x)}
        if self.init is not None:
            found["init holds NaN or infinity"] = ~self._finite(self.init)
        found["the encoder's mean or variance is not finite"] = ~self._finite(z)
        if self.inv_mass is not None:
            found["the encoder's variance is 0 or not finite, so no mass"] = ~self._usable_mass()
        outside = torch.isposinf(U).view(len(self.x), -1).any(1)
        found["the start has density 0: it lies outside the prior's support"] = outside
        found["the energy at the start is not finite"] = ~self._finite(U)
        found["the energy's gradient at the start is not finite"] = ~self._finite(grad)
        return found

    def _finite(self, values: Tensor) -> Tensor:
        return finite(values).reshape(len(self.x), -1).all(1)

    def _usable_mass(self) -> Tensor:
        mass = self.inv_mass
        assert mass is not None
        return (torch.isfinite(mass) & (mass > 0)).all(1)


def unresolved(found: Resolution, dtype: torch.dtype) -> dict[str, Tensor]:
    """Masks [B] of rows whose posterior is too narrow, or whose energy too large, for ``dtype``."""
    name = checks.short(dtype)
    return {
        f"{name} does not resolve the energy: its rounding errors decide what is accepted": (
            found.noisy
        ),
        f"{name} does not resolve the latents: steps are as short as the spacing of z": (
            found.frozen
        ),
    }


def immobile(accepted: Tensor, divergent: Tensor, steps: int) -> dict[str, Tensor]:
    """Masks [B] of rows with a chain that never moved after the warm-up; counts are [B, C]."""
    enough = steps >= PROPOSALS
    diverged, stuck = (divergent == steps).any(1), (accepted == 0).any(1)
    return {DIVERGED: diverged & enough, STUCK: stuck & enough}


def say(
    what: str, failed: Tensor, reasons: Reasons, dtype: torch.dtype, *, stacklevel: int = 3
) -> None:
    """One warning line for the rows with which something is wrong.

    Args:
        what: the function that it is said of.
        failed: [B] bool.
        reasons: one for each row.
        dtype: in which the chains ran.
        stacklevel: of the frame that the warning is about, as seen from here.
    """
    if not any(reasons):
        return
    gone = set(marked(failed))
    lines = []
    for reason in dict.fromkeys(filter(None, reasons)):
        rows = [row for row, own in enumerate(reasons) if own == reason]
        ran = rows[0] not in gone
        remedy = f"; {REMEDY.get(reason) or _finer(dtype)}" if ran else ""
        verb = "" if ran else " failed"
        lines.append(
            f"{len(rows)} of {len(reasons)} inputs ({listed(rows)}){verb}: {reason}{remedy}"
        )
    line = f"{what}: {'; '.join(lines)} (see reasons)"
    warnings.warn(line, SamplerWarning, stacklevel=stacklevel)


def _finer(dtype: torch.dtype) -> str:
    if dtype == torch.float64:
        return "raise obs_std or rescale the data"
    return 'use float64: precision="float64", or vae.double() with x.double()'
