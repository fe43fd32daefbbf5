"""What the sampler returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vaefast.runtime.reasons import Reasons

if TYPE_CHECKING:
    from vaefast.hmc.diagnostics import Diagnostics

__all__ = ["Defence", "HMCResult"]


@dataclass(frozen=True)
class HMCResult:
    """Draws from p(z|x), C chains for each of B inputs.

    A row that ``failed`` holds NaN in every floating field and 0 in ``divergent``. A row that is
    ``unresolved`` ran, but not on its posterior: its draws are not to be trusted.

    Args:
        z: [B, C, T, d], the kept draws, oldest first.
        accept_rate: [B, C], share of accepted proposals after warm-up.
        step_size: [B], the step size after warm-up (of the last transition, under a schedule).
        energy: [B, C, T] float64, U(z) = −log p(x|z) − log p(z) of the kept draws, nats.
        divergent: [B, C] int64, divergent transitions after warm-up (energy error above 1000 nats
            or not finite, as outside of a bounded prior; the proposal is rejected).
        failed: [B] bool, the row's input, start or a model output at the start was not finite.
        unresolved: [B] bool, rounding errors of U in the dtype of z decide what is accepted
            (``rounding`` above 0.1 nats), or steps are as short as the spacing of z.
        rounding: [B] float64, nats, how far energy differences are off by rounding (root mean
            square, about the row's last states).
        reasons: what is wrong with each row, one string each, "" where nothing is: why it failed
            or is unresolved, or that a chain never moved after the warm-up.
        reproducible: how far a row's numbers repeat when the batch is cut differently: ``"bits"``,
            ``"blocks"`` or ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
    """

    z: Tensor
    accept_rate: Tensor
    step_size: Tensor
    energy: Tensor
    divergent: Tensor
    failed: Tensor
    unresolved: Tensor
    rounding: Tensor
    reasons: Reasons
    reproducible: str = "round-off"

    def diagnostics(self) -> Diagnostics:
        """Convergence of every row and latent: split R-hat, bulk and tail ESS; needs ArviZ.

        Raises:
            ImportError: ArviZ is not installed (``pip install vaefast[all]``).
        """
        from vaefast.hmc.diagnostics import diagnose

        return diagnose(self)

    def to_arviz(self, row: int | None = None) -> Any:
        """The draws as ``arviz.InferenceData``.

        ``posterior.z`` has the dimensions (chain, draw, row, latent), or (chain, draw, latent) for
        one ``row``; ``sample_stats.lp`` is −U in nats. A failed row is NaN.

        Args:
            row: number of one input in [0, B), or None for all.

        Raises:
            ImportError: ArviZ is not installed (``pip install vaefast[all]``).
            IndexError: no such row.
        """
        from vaefast.hmc.diagnostics import inference_data

        return inference_data(self, row)


@dataclass(frozen=True)
class Defence:
    """The last state of every chain and what it decodes to.

    Args:
        z: [B, C, d], z_T of every chain.
        reconstruction: [B, C, *event], g(z_T) in pixel scale, unclipped.
        result: the chains behind it.
    """

    z: Tensor
    reconstruction: Tensor
    result: HMCResult
