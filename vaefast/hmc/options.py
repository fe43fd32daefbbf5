"""The sampler's options, checked once and with the schedule's values filled in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.forms import LAYOUTS
from vaefast.philox import MAX_LANE, check_seed

__all__ = ["Options", "chain_starts", "inverse_mass", "positive_step_size"]

ADAPT = ("dual_averaging", None)
SCHEDULES = (None, "kuzina2022")
PRECISIONS = ("ieee", "tf32", "bf16", "float64")


class Options(NamedTuple):
    """The scalar options of :func:`vaefast.hmc.sample`, complete and valid."""

    chains: int
    steps: int
    warmup: int
    leapfrog: int
    adapt: str | None
    jitter: float
    schedule: str | None
    kept: int
    posterior_mass: bool
    precision: str
    memory_format: str | None
    seed: int

    @property
    def thin(self) -> int:
        """Transitions from one kept draw to the next; the last transition is always kept."""
        return self.steps // self.kept

    @property
    def transitions(self) -> int:
        return self.warmup + self.steps

    @classmethod
    def checked(
        cls,
        *,
        chains: int,
        steps: int,
        warmup: int | None,
        leapfrog: int | None,
        adapt: str | None,
        jitter: float | None,
        mass: str | Tensor | None,
        schedule: str | None,
        keep: str | int | None,
        precision: str,
        memory_format: str | None,
        seed: int,
    ) -> Options:
        """Check every option; None becomes the default of the schedule."""
        checks.option(schedule, "schedule", SCHEDULES)
        checks.option(adapt, "adapt", ADAPT)
        steps = checks.count(steps, "steps")
        published = schedule == "kuzina2022"
        if published:
            _refuse_fixed(warmup=warmup, jitter=jitter, mass=mass)
        default_warmup, default_leapfrog, default_jitter, default_keep = (
            (steps // 2, 20, 0.0, "last") if published else (500, 10, 0.2, "all")
        )
        return cls(
            chains=_chains(chains),
            steps=steps,
            warmup=default_warmup if warmup is None else checks.count(warmup, "warmup", 0),
            leapfrog=default_leapfrog if leapfrog is None else checks.count(leapfrog, "leapfrog"),
            adapt=None if published else adapt,
            jitter=default_jitter if jitter is None else _jitter(jitter),
            schedule=schedule,
            kept=_kept(default_keep if keep is None else keep, steps),
            posterior_mass=_posterior_mass(mass),
            precision=_products(precision),
            memory_format=_layout(memory_format),
            seed=check_seed(seed),
        )


def positive_step_size(step_size: float | Tensor, rows: int, like: Tensor) -> Tensor:
    """[B] of ``like``'s dtype, positive and finite."""
    step = checks.per_row(step_size, "step_size", rows, like=like)
    good = (step > 0) & (step < torch.inf)
    if not bool(good.all()):
        raise ValueError(f"step_size must be positive and finite, got {float(step[~good][0]):g}")
    return step


def inverse_mass(mass: object, rows: int, latents: int, like: Tensor) -> Tensor:
    """1/mass as [B, d] of ``like``'s dtype, from masses [d] or [B, d]."""
    mass = checks.tensor(mass, "mass")
    checks.same_device(x=like, mass=mass)
    if list(mass.shape) not in ([latents], [rows, latents]):
        raise ValueError(
            f'mass must be None, "posterior", [d] = [{latents}] or [B, d] = [{rows}, {latents}], '
            f"got {list(mass.shape)}"
        )
    if not bool(((mass > 0) & torch.isfinite(mass)).all()):
        raise ValueError("mass must be positive and finite in every entry")
    return mass.to(like.dtype).reciprocal().expand(rows, latents).contiguous()


def chain_starts(
    init: Tensor, rows: int, chains: int, latents: tuple[int, ...], like: Tensor
) -> Tensor:
    """[B, C, d] of ``like``'s dtype, from one start per row or per chain, flat or shaped."""
    checks.same_device(x=like, init=checks.tensor(init, "init"))
    d = torch.Size(latents).numel()
    shapes = [[rows, d], [rows, chains, d]]
    shaped = [[rows, *latents], [rows, chains, *latents]] if len(latents) != 1 else []
    if list(init.shape) not in shapes + shaped:
        also = f", or {shaped[0]} or {shaped[1]} in the latents' own shape" if shaped else ""
        raise ValueError(
            f"init must be [B, d] = {shapes[0]} or [B, C, d] = {shapes[1]}{also}, "
            f"got {list(init.shape)}"
        )
    init = init.detach().to(like.dtype)
    if list(init.shape) in (shapes[0], shaped[0] if shaped else None):
        return init.view(rows, 1, d).expand(rows, chains, d)
    return init.reshape(rows, chains, d)


def _refuse_fixed(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                'schedule="kuzina2022" fixes warmup (steps // 2), jitter (0) and mass (None), '
                f"got {name}={value!r}; leave it out"
            )


def _posterior_mass(mass: str | Tensor | None) -> bool:
    if isinstance(mass, str):
        checks.option(mass, "mass", ("posterior",))
    return isinstance(mass, str)


def _chains(chains: int) -> int:
    if checks.count(chains, "chains") > MAX_LANE:
        raise ValueError(f"chains must be at most {MAX_LANE}, got {chains}")
    return chains


def _jitter(jitter: float) -> float:
    if not 0.0 <= checks.number(jitter, "jitter") < 1.0:
        raise ValueError(f"jitter must lie in [0, 1), got {jitter:g}")
    return float(jitter)


def _products(precision: str) -> str:
    """Of the gradients' products; float64 is that of everything, see vaefast/hmc/promotion.py."""
    checks.option(precision, "precision", PRECISIONS)
    return "ieee" if precision == "float64" else precision


def _layout(memory_format: str | None) -> str | None:
    if memory_format is None:
        return None
    return checks.option(memory_format, "memory_format", LAYOUTS)


def _kept(keep: str | int, steps: int) -> int:
    if isinstance(keep, str):
        return steps if checks.option(keep, "keep", ("all", "last")) == "all" else 1
    if checks.count(keep, "keep") > steps:
        raise ValueError(f"keep must be at most steps = {steps}, got {keep}")
    return keep
