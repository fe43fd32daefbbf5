"""hamiltorch's ``sample``: the same call and list of tensors, several chains in one batch.

    from vaefast.integrations import hamiltorch
    draws = hamiltorch.sample(log_prob_func, params_init, num_samples=400, step_size=0.1, burn=100)

Nothing of hamiltorch is imported. Its plain HMC and what it calls ``HMC_NUTS`` (HMC whose step size
adapts in the burn-in) are here; Riemannian and split samplers are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from vaefast import checks
from vaefast.hmc.sample_potential import sample_potential

__all__ = ["Sampler", "sample"]


class Sampler(Enum):
    """hamiltorch's names; its own members are taken too."""

    HMC = 1
    RMHMC = 2
    HMC_NUTS = 3


def sample(
    log_prob_func: Callable[[Tensor], Tensor],
    params_init: Tensor,
    num_samples: int = 10,
    num_steps_per_sample: int = 10,
    step_size: float = 0.1,
    burn: int = 0,
    inv_mass: Tensor | Sequence[Tensor] | None = None,
    sampler: Any = Sampler.HMC,
    debug: bool | int = False,
    desired_accept_rate: float = 0.8,
    store_on_GPU: bool = True,
    pass_grad: Callable[[Tensor], Tensor] | None = None,
    verbose: bool = False,
    *,
    batched: bool = False,
    seed: int | None = None,
) -> Any:
    """Draw by Hamiltonian Monte Carlo, as ``hamiltorch.sample`` does.

    Args:
        log_prob_func: one point [d] ↦ its log-density, a scalar; with ``batched`` [n, d] ↦ [n].
        params_init: [d] as in hamiltorch, or [C, d]: C chains, each leapfrog of all of them in one
            evaluation, by ``torch.func.vmap`` unless ``batched``.
        num_samples: transitions, those of the burn-in among them.
        num_steps_per_sample: L, leapfrogs a transition.
        step_size: ε; with ``HMC_NUTS`` where dual averaging starts.
        burn: transitions that are left out; less than ``num_samples``.
        inv_mass: M⁻¹, [d], [d, d] or its diagonal blocks.
        sampler: ``Sampler.HMC`` or ``Sampler.HMC_NUTS``, ours or hamiltorch's.
        debug: 2 returns the acceptance rate of the draws beside them, with ``HMC_NUTS`` the step.
        desired_accept_rate: of ``HMC_NUTS``.
        store_on_GPU: False brings the draws to the CPU.
        pass_grad: point ↦ the gradient of ``log_prob_func`` there, in place of autograd.
        verbose: show a progress bar.
        batched: as above, for ``pass_grad`` too.
        seed: of the random numbers; default one from torch's generator.

    Returns:
        num_samples − burn tensors like ``params_init``, the start first, as in hamiltorch, which
        leaves out transition ``burn`` itself.

    Raises:
        RuntimeError: ``burn`` not below ``num_samples``, or 0 with ``HMC_NUTS``, or ``params_init``
            with other dimensions.
        NotImplementedError: another sampler.

    Beside hamiltorch: an energy that is not finite rejects the proposal; one at the start fails.
    """
    name = getattr(sampler, "name", str(sampler))
    if name not in ("HMC", "HMC_NUTS"):
        raise NotImplementedError(f"sampler must be HMC or HMC_NUTS, got {name}")
    if checks.tensor(params_init, "params_init").dim() not in (1, 2):
        raise RuntimeError(
            f"params_init must be [d], or [C, d] for C chains, got {list(params_init.shape)}"
        )
    if burn >= num_samples:
        raise RuntimeError(f"burn must be less than num_samples = {num_samples}, got {burn}")
    if name == "HMC_NUTS" and burn == 0:
        raise RuntimeError("burn must be greater than 0 for HMC_NUTS")
    start = params_init.detach()
    if num_samples - burn == 1:
        return [start.clone()]
    single = start.dim() == 1
    scale, mass = _masses(inv_mass, start)
    points = start[None] if single else start
    result = sample_potential(
        _potential(log_prob_func, pass_grad, scale, batched=batched, single=single),
        (points if scale is None else _solved(scale, points))[None],
        steps=num_samples - burn - 1,
        warmup=burn + 1,
        leapfrog=num_steps_per_sample,
        step_size=step_size,
        adapt="dual_averaging" if name == "HMC_NUTS" else None,
        target_accept=desired_accept_rate,
        jitter=0.0,
        mass="unit" if mass is None else mass,
        seed=int(torch.randint(2**62, (1,), device="cpu")) if seed is None else seed,
        progress=verbose,
    )
    drawn = result.z[0] if scale is None else result.z[0] @ scale.mT
    drawn = drawn[0] if single else drawn.movedim(1, 0)
    draws = [start.clone(), *drawn.unbind(0)]
    if not store_on_GPU:
        draws = [draw.cpu() for draw in draws]
    if debug == 2:
        return draws, float(result.step_size if name == "HMC_NUTS" else result.accept_rate.mean())
    return draws


def _potential(
    log_prob: Callable[[Tensor], Tensor],
    gradient: Callable[[Tensor], Tensor] | None,
    scale: Tensor | None,
    *,
    batched: bool,
    single: bool,
) -> Callable[[Tensor], Any]:
    """U of u [n, d], or U and its gradient, with the point S·u where there is a scale S."""

    def mapped(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        if batched:
            return function
        if single:
            return lambda points: torch.stack([function(point) for point in points])
        return torch.func.vmap(function)

    density = mapped(lambda point: log_prob(point) if batched else log_prob(point).reshape(()))
    slope = None if gradient is None else mapped(gradient)

    def potential(u: Tensor) -> Any:
        points = u if scale is None else u @ scale.mT
        energy = -density(points)
        if slope is None:
            return energy
        with torch.no_grad():
            grad = -slope(points)
            return energy, grad if scale is None else grad @ scale

    return potential


def _masses(inv_mass: Any, start: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """S with M⁻¹ = S Sᵀ for a matrix, or the masses of a diagonal: (S, None) or (None, M)."""
    if inv_mass is None:
        return None, None
    if not isinstance(inv_mass, Tensor):
        inv_mass = torch.block_diag(*inv_mass)
    inv_mass = inv_mass.to(start)
    if inv_mass.dim() == 2:
        return torch.linalg.cholesky(inv_mass), None
    return None, 1.0 / inv_mass


def _solved(scale: Tensor, points: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(scale, points.mT, upper=False).mT
