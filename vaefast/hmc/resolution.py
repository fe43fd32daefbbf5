"""Whether a chain's dtype resolves its posterior: rounding in U, and steps against z's spacing.

Where the terms of U are large beside 1 nat, their rounding errors decide what is accepted. The step
size then adapts to the errors instead of the posterior: it shrinks, often below the spacing of z,
while the share of accepted proposals stays near its target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.hmc import State
from vaefast.functional.leapfrog import per_chain
from vaefast.functional.rows import repeated

__all__ = ["Resolution", "resolution"]

NOISE = 0.1  # nats; an energy off by that moves the target by up to 5 % (mathematics.md §10)
DOUBTFUL = 0.01  # nats; below, one look is enough
SUSPICIOUS = 1e-4  # nats; below, a rounding unit of U needs no look
SUSPICIOUS_WORK = 0.1  # nats by which U changes in a step that is short, a spacing that is long
VISIBLE = 64.0  # spacings of z that two points are apart at least
SPACINGS = 4.0  # of z, that a step has to be long
BLUR = 0.5  # nats by which U changes within the spacing of z
FIRST_LOOK = (0.3,)
COARSE = (0.1, 0.09, 0.08, 0.07, 0.06)
FINE = (0.01, 0.009, 0.008, 0.007, 0.006)


class Resolution(NamedTuple):
    """What the dtype leaves of the energies and steps of B rows."""

    rounding: Tensor  # [B] float64, nats: root mean square error by rounding of energy differences
    noisy: Tensor  # [B] bool, it is more than the Metropolis decision bears
    frozen: Tensor  # [B] bool, steps, or the posterior itself, are as narrow as z's spacing

    @property
    def unresolved(self) -> Tensor:
        """[B] bool."""
        return self.noisy | self.frozen


def resolution(
    potential: Callable[[Tensor], tuple[Tensor, Tensor]],
    state: State,
    step: Tensor,
    inv_mass: Tensor | None,
    *,
    exact: bool,
) -> Resolution:
    """Measured at the states z with gradient g, by one more evaluation of U, rarely by eleven.

    Along δ ∝ g, short beside the posterior's width, U(z + δ) − U(z) is ½⟨δ, g(z) + g(z + δ)⟩ up to
    O(δ³). What is left beyond is rounding, if it does not fall with the length of δ. Rows without a
    sign of it are not measured; their energies round to the nearest number. A row depends on its
    own chains only.

    Args:
        potential: z [N, d] to U [N] float64 and its gradient.
        state: of N = B·C chains.
        step: [B], step sizes.
        inv_mass: [B, d] or None.
        exact: U is known to be computed in the dtype of z; else every row is measured.
    """
    rows, eps = len(step), torch.finfo(state.z.dtype).eps
    drift = repeated(step.double(), len(state.z) // max(rows, 1)).unsqueeze(1)
    if inv_mass is not None:
        drift = drift * per_chain(inv_mass, state.z).double().sqrt()  # [N, d]
    reach, norm = drift.amin(1), torch.linalg.vector_norm(state.grad, dim=1).double()
    spacing = eps * state.z.abs().double()  # [N, d]
    rounding, widest = eps * state.U.abs(), spacing.amax(1)
    suspicious = (rounding > SUSPICIOUS) | (reach * norm < SUSPICIOUS_WORK)
    suspicious |= (widest * norm > SUSPICIOUS_WORK) | (widest * SPACINGS > reach)
    suspicious = suspicious.view(rows, -1).any(1) | (not exact)
    noise = rounding.view(rows, -1).amax(1)
    if not bool(suspicious.any()):
        return Resolution(noise, suspicious, suspicious)
    measured = _noise(potential, state, reach, VISIBLE * spacing.norm(dim=1), rows)
    noise = torch.where(suspicious, measured, noise)
    frozen = (drift < SPACINGS * spacing).any(1) | ((spacing * state.grad).norm(dim=1) > BLUR)
    return Resolution(noise, noise > NOISE, frozen.view(rows, -1).any(1) & suspicious)


def _noise(
    potential: Callable[[Tensor], tuple[Tensor, Tensor]],
    state: State,
    reach: Tensor,
    shortest: Tensor,
    rows: int,
) -> Tensor:
    """Root mean square over a row's chains and several δ of what is left: [rows] float64, nats."""

    def look(lengths: tuple[float, ...]) -> Tensor:
        found = [_residual(potential, state, length, reach, shortest) for length in lengths]
        return torch.stack(found, 1).square().view(rows, -1).mean(1).sqrt()

    noise = look(FIRST_LOOK)
    doubtful = noise > DOUBTFUL
    if bool(doubtful.any()):
        noise = torch.where(doubtful, torch.minimum(look(COARSE), look(FINE)), noise)
    return noise


def _residual(
    potential: Callable[[Tensor], tuple[Tensor, Tensor]],
    state: State,
    length: float,
    reach: Tensor,
    shortest: Tensor,
) -> Tensor:
    """|U(z + δ) − U(z) − ½⟨δ, g + g'⟩| [N] float64, nats; 0 where U is not finite.

    ‖δ‖ is ``length`` over ‖g‖, so that U changes by that many nats, at most the same share of
    ``reach`` [N], and at least ``shortest`` [N].
    """
    z, grad = state.z.double(), state.grad.double()
    norm = grad.norm(dim=1)
    norm_delta = torch.minimum(length / norm, length * reach).maximum(shortest)
    near = torch.addcmul(z, (norm_delta / norm).unsqueeze(1), grad).to(state.z.dtype)
    U, near_grad = potential(near)
    expected = 0.5 * ((near.double() - z) * (grad + near_grad.double())).sum(1)
    return (U - state.U - expected).abs().nan_to_num(0.0, 0.0, 0.0)
