"""Convergence diagnostics and export, through ArviZ (optional)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaefast import philox
from vaefast.hmc.result import HMCResult, Transitions
from vaefast.hmc.verdict import judge, verdict

__all__ = ["Diagnostics", "diagnose", "inference_data"]

MIN_CHAINS = 2  # of R-hat
MIN_DRAWS = 4


@dataclass(frozen=True)
class Diagnostics:
    """Convergence of B posteriors; nothing is pooled over rows.

    NaN where it is undefined: fewer than 4 kept draws, R-hat of a single chain, a failed row, a
    chain that never moved.

    Args:
        r_hat: [B, d] float64, rank-normalised split R-hat; above 1.01 the chains disagree.
        ess_bulk: [B, d] float64, effective draws for the centre, all chains together.
        ess_tail: [B, d] float64, effective draws for the 5 % and 95 % quantiles.
        accept_rate: [B, C], after warm-up.
        divergent: [B, C] int64, after warm-up.
        step_size: [B].
        e_bfmi: [B, C] float64, how much of the energies' spread one new momentum covers; below 0.3
            the tails are hardly visited. NaN where draws are thinned.
        energy_error: [B, C, n] float64, nats, H at the end − H at the start of every 64th
            trajectory, accepted or not; None of shorter or thinned chains and
            where a schedule adapts on.
        failed: [B] bool.
        transitions: after the warm-up.

    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner, "Rank-normalization, folding, and
    localization: an improved R-hat", Bayesian Analysis 16 (2021), computed by ArviZ; Betancourt,
    "Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo" (2016), for E-BFMI.
    """

    r_hat: Tensor
    ess_bulk: Tensor
    ess_tail: Tensor
    accept_rate: Tensor
    divergent: Tensor
    step_size: Tensor
    e_bfmi: Tensor
    energy_error: Tensor | None
    failed: Tensor
    transitions: int

    @property
    def mixed(self) -> Tensor:
        """[B] bool: R-hat at most 1.06, 100 effective draws, E-BFMI 0.3, 1 % of divergences."""
        causes = judge(self).values()
        return ~torch.stack([mask for mask, _ in causes]).any(0)

    @property
    def verdict(self) -> str:
        """One line, as "412 of 500 rows mixed; rows 3, 17, ... did not: R-hat 1.40 at worst"."""
        return verdict(self)


def diagnose(result: HMCResult) -> Diagnostics:
    """See :meth:`HMCResult.diagnostics`."""
    az = _arviz()
    chains, draws = result.z.shape[1:3]
    enough = draws >= MIN_DRAWS
    return Diagnostics(
        r_hat=_per_latent(az.rhat, result, enough and chains >= MIN_CHAINS, method="rank"),
        ess_bulk=_per_latent(az.ess, result, enough, method="bulk"),
        ess_tail=_per_latent(az.ess, result, enough, method="tail"),
        accept_rate=result.accept_rate,
        divergent=result.divergent,
        step_size=result.step_size,
        e_bfmi=_e_bfmi(result),
        energy_error=result.energy_error,
        failed=result.failed,
        transitions=draws * (1 if result.transitions is None else result.transitions.thin),
    )


def _e_bfmi(result: HMCResult) -> Tensor:
    """mean (E_t − E_{t−1})² / var E of every chain, [B, C] float64; all rows at once."""
    level = torch.full_like(result.energy, torch.nan)
    if result.transitions is not None and result.transitions.thin == 1:
        level = result.energy + kinetic_energy(result.z.flatten(3), result.transitions)
    if level.shape[2] < MIN_DRAWS or not len(level):
        return torch.full_like(level[:, :, 0], torch.nan)
    return level.diff(dim=2).square().mean(2) / level.var(2)


def inference_data(result: HMCResult, row: int | None) -> Any:
    """See :meth:`HMCResult.to_arviz`."""
    az = _arviz()
    rows = len(result.z)
    if row is not None and not 0 <= row < rows:
        raise IndexError(f"row must lie in [0, {rows}), got {row}")
    if row is not None:
        result = _only(result, row)
    parts = {"z": result.z, **_statistics(result)}
    values = {name: _draws(part) for name, part in parts.items()}
    if row is not None:
        values = {name: value[:, :, 0] for name, value in values.items()}
    row_dim = ["row"] if row is None else []
    z = values.pop("z")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # more chains than draws, with keep="last"
        return az.from_dict(
            posterior={"z": z},
            sample_stats=values,
            dims={"z": [*row_dim, "latent"], **dict.fromkeys(values, row_dim)},
        )


def _only(result: HMCResult, row: int) -> HMCResult:
    """The result of one row."""
    rows = slice(row, row + 1)
    cut: dict[str, Any] = {
        field.name: value[rows]
        for field in fields(result)
        if isinstance(value := getattr(result, field.name), Tensor | tuple)
    }
    if result.transitions is not None:
        index = result.transitions.index[rows]
        cut["transitions"] = replace(result.transitions, index=index)
    return replace(result, **cut)


def _statistics(result: HMCResult) -> dict[str, Tensor]:
    """What ArviZ's ``sample_stats`` hold, [B, C, T] each, by the names that it knows."""
    shape = result.energy.shape
    found = {
        "lp": -result.energy,
        "acceptance_rate": result.accept_rate[:, :, None].expand(shape),
        "step_size": result.step_size[:, None, None].expand(shape),
    }
    if result.diverging is not None:
        found["diverging"] = result.diverging
    elif not bool(result.divergent.any()):
        found["diverging"] = torch.zeros_like(result.energy, dtype=torch.bool)
    if result.transitions is not None:
        found["energy"] = result.energy + kinetic_energy(result.z.flatten(3), result.transitions)
    if result.leapfrog is not None:
        found["n_steps"] = result.leapfrog[:, None, None].expand(shape)
    return found


def kinetic_energy(z: Tensor, transitions: Transitions) -> Tensor:
    """½ pᵀM⁻¹p [B, C, T] float64, nats, of the momentum drawn after each draw of z [B, C, T, d].

    It is made from its random numbers once more: p = M^½ n with n standard normal.
    """
    rows, chains, kept, latents = z.shape
    index = transitions.index.repeat_interleave(chains)
    lane = torch.arange(chains, device=index.device).repeat(rows)
    found = z.new_empty(rows, chains, kept, dtype=torch.float64)
    for draw in range(kept):
        noise = philox.normal(
            latents,
            seed=transitions.seed,
            index=index,
            lane=lane,
            step=transitions.first + draw * transitions.thin + 1,
            use=philox.Use.MOMENTUM,
        )
        found[:, :, draw] = 0.5 * noise.square().sum(1).view(rows, chains)
    return found


def _per_latent(statistic: Any, result: HMCResult, defined: bool, **options: Any) -> Tensor:
    rows, latents = result.z.shape[0], result.z.shape[3]
    values = torch.full((rows, latents), torch.nan, dtype=torch.float64, device="cpu")
    healthy = ~result.failed.cpu()
    if defined and bool(healthy.any()):
        draws = _draws(result.z)[:, :, healthy.numpy()]
        with np.errstate(all="ignore"):  # a chain that never moved has no variance
            computed = statistic({"z": draws}, **options)["z"].values
        stuck = (np.ptp(draws, axis=1) == 0).any(axis=0)  # ArviZ gives a constant chain full marks
        values[healthy] = torch.from_numpy(np.where(stuck, np.nan, computed))
    return values.to(result.z.device)


def _draws(values: Tensor) -> np.ndarray:
    """[B, C, T, ...] to ArviZ's [C, T, B, ...]."""
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).movedim(0, 2).numpy()


def _arviz() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its 1.0 on import
            import arviz
    except ImportError as error:
        raise ImportError(
            "diagnostics need ArviZ, which is not installed; pip install vaefast[all]"
        ) from error
    return arviz
