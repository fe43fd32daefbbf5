"""What the sampler returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vaefast.runtime.reasons import Reasons

if TYPE_CHECKING:
    from vaefast.hmc.diagnostics import Diagnostics

__all__ = ["Defence", "HMCResult", "Transitions"]


@dataclass(frozen=True)
class Transitions:
    """Which transitions the T kept draws follow, and what their random numbers depend on.

    Args:
        index: [B] int64, global indices of the inputs.
        seed: of :func:`~vaefast.hmc.sample`.
        first: number of the transition that the first draw follows, counted from the warm-up on.
        thin: transitions from one draw to the next.
    """

    index: Tensor
    seed: int
    first: int
    thin: int


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
        diverging: [B, C, T] bool, the draw follows a divergent transition (and so repeats the one
            before); None where draws are thinned.
        transitions: which ones the draws follow.
        energy_error: [B, C, n] float64, nats, H at the end less H at the start of every 64th
            trajectory after the warm-up; None of shorter or thinned chains and
            where a schedule adapts on.
        leapfrog: [B] int64, L after the warm-up; a row has its own with "quarter" and "chees".
        mass: "unit", "posterior", "pullback", "dense", "warmup" or "given": with which masses the
            chains ran, also where it was left to the default.
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
    diverging: Tensor | None = None
    transitions: Transitions | None = None
    reproducible: str = "round-off"
    energy_error: Tensor | None = None
    leapfrog: Tensor | None = None
    mass: str = "unit"

    def diagnostics(self) -> Diagnostics:
        """Convergence of every row and latent: split R-hat, bulk and tail ESS; needs ArviZ.

        Raises:
            ImportError: ArviZ is not installed (``pip install vaefast[all]``).
        """
        from vaefast.hmc.diagnostics import diagnose

        return diagnose(self)

    @property
    def verdict(self) -> str:
        """Which rows mixed, in one line, from :meth:`diagnostics`; needs ArviZ.

        "412 of 500 rows mixed; rows 3, 17, 40, 52, 61, ... did not: R-hat 1.40 at worst".

        Raises:
            ImportError: ArviZ is not installed (``pip install vaefast[all]``).
        """
        return self.diagnostics().verdict

    def to_arviz(self, row: int | None = None) -> Any:
        """The draws as ``arviz.InferenceData``.

        ``posterior.z`` has the dimensions (chain, draw, row, latent), or (chain, draw, latent) for
        one ``row``. A failed row is NaN. ``sample_stats`` has, for every draw:

        - ``lp``, −U in nats, and ``energy``, U plus the kinetic energy of the momentum that is
          drawn next: the level on which the next trajectory runs, as ``arviz.bfmi`` takes it of
          one row;
        - ``diverging``, whether it follows a divergent transition; left out where draws are
          thinned and some diverged;
        - ``acceptance_rate``, ``step_size`` and ``n_steps`` (L), one value for a chain's draws.

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
