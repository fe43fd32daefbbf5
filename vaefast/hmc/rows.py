"""The chains of one chunk of rows, from their start to the kept draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vaefast import philox
from vaefast.functional.chain import Chain
from vaefast.hmc.adaptation import DualAveraging
from vaefast.hmc.chain import Chains, State
from vaefast.hmc.options import Options
from vaefast.hmc.result import HMCResult
from vaefast.hmc.schedule import GroupStepSize
from vaefast.hmc.target import GenericTarget, NetworkTarget, Target
from vaefast.models.footprint import activation_bytes
from vaefast.models.paths import Paths
from vaefast.runtime import batching
from vaefast.runtime.batching import Rows
from vaefast.runtime.capture import Graphs
from vaefast.types import Network

__all__ = ["Inputs", "Plan", "sample_rows"]


@dataclass(frozen=True)
class Inputs:
    """What differs from row to row; B rows."""

    x: Tensor  # [B, *event]
    index: Tensor  # [B] int64
    step_size: Tensor  # [B]
    group: Tensor  # [B] int64
    init: Tensor | None  # [B, C, d]
    inv_mass: Tensor | None  # [B, d]
    latents: int  # d

    @property
    def grouped(self) -> bool:
        """Whether rows share a step size."""
        return len(torch.unique(self.group)) < len(self.group)

    def rows(self, rows: Rows) -> Inputs:
        """Some of them; without groups a copy of a row is a group of its own."""
        group = self.group[rows]
        if not self.grouped:
            group = torch.arange(len(group), device=group.device)
        return Inputs(
            x=self.x[rows],
            index=self.index[rows],
            step_size=self.step_size[rows],
            group=group,
            init=None if self.init is None else self.init[rows],
            inv_mass=None if self.inv_mass is None else self.inv_mass[rows],
            latents=self.latents,
        )


@dataclass(frozen=True)
class Plan:
    """What all rows share."""

    paths: Paths
    decoder: Network | None  # None: the generic path
    options: Options
    backend: str | None
    tick: Callable[[int], object]  # is told how many transitions were done
    recordings: Graphs

    @property
    def likelihood(self) -> str:
        """The model's own; the published schedule clamps the Bernoulli's probabilities."""
        vae = self.paths.vae
        clamped = self.options.schedule == "kuzina2022" and vae.likelihood == "bernoulli"
        return "clamped_bernoulli" if clamped else vae.likelihood


def sample_rows(plan: Plan, inputs: Inputs) -> HMCResult:
    """Start, warm up and run the chains of some rows; rows do not influence each other.

    Under a schedule the rows of a group share a step size.
    """
    dtype = inputs.step_size.dtype
    z, inv_mass = _start(plan, inputs)
    target = _target(plan, inputs.x, inv_mass, dtype)
    chains = Chains(
        target=target,
        index=inputs.index,
        jitter=plan.options.jitter,
        seed=plan.options.seed,
        tick=plan.tick,
    )
    state = chains.start(z)
    failed = _failed(inputs.x, state, inv_mass)
    if plan.options.schedule == "kuzina2022":
        step = GroupStepSize(inputs.step_size, inputs.group, ~failed)
        run, step_size = _adapt_throughout(plan.options, chains, state, step)
    else:
        run, step_size = _warm_up_and_freeze(plan.options, chains, state, inputs.step_size)
    return _result(plan.options, run, step_size.to(dtype), failed)


def _start(plan: Plan, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """z₀ [N, d], a draw from q(z|x) where none was given, and the inverse mass."""
    init, inv_mass = inputs.init, inputs.inv_mass
    dtype, chains = inputs.step_size.dtype, plan.options.chains
    if init is None or plan.options.posterior_mass:
        mean, std = (values.to(dtype) for values in _posterior(plan, inputs))
        if plan.options.posterior_mass:
            inv_mass = std.square()
    if init is not None:
        return init.flatten(0, 1).contiguous(), inv_mass
    lane = torch.arange(chains, device=mean.device)
    noise = philox.normal(
        mean.shape[1],
        seed=plan.options.seed,
        index=inputs.index.repeat_interleave(chains),
        lane=lane.repeat(len(mean)),
        use=philox.Use.INITIAL,
        dtype=dtype,
    )
    mean, std = (values.repeat_interleave(chains, dim=0) for values in (mean, std))
    return mean + std * noise, inv_mass


def _posterior(plan: Plan, inputs: Inputs) -> tuple[Tensor, ...]:
    """μ and σ, [B, d] each; an encoder that is no MLP has blocks of its own."""
    paths, x = plan.paths, inputs.x
    return batching.evaluate(
        lambda rows: paths.posterior(x[rows]),
        inputs.index,
        activation_bytes(paths.vae.posterior, x, paths.vae),
        generic=paths.encoder is None,
    )


def _target(plan: Plan, x: Tensor, inv_mass: Tensor | None, dtype: torch.dtype) -> Target:
    pixels, options = x.flatten(1).to(dtype), plan.options  # [B, D]
    if plan.decoder is None:
        return GenericTarget(
            x=pixels,
            vae=plan.paths.vae,
            likelihood=plan.likelihood,
            inv_mass=inv_mass,
            leapfrog=options.leapfrog,
            backend=plan.backend,
            precision=options.precision,
            memory_format=options.memory_format,
            recordings=plan.recordings,
        )
    return NetworkTarget(
        x=pixels,
        net=plan.decoder,
        likelihood=plan.likelihood,
        likelihood_params=plan.paths.vae.likelihood_params,
        inv_mass=inv_mass,
        leapfrog=options.leapfrog,
        precision=options.precision,
        backend=plan.backend,
    )


def _failed(x: Tensor, state: State, inv_mass: Tensor | None) -> Tensor:
    """[B] bool: something about the row's start is not finite."""
    rows = len(x)
    finite = torch.isfinite(x).flatten(1).all(1)
    for values in state:
        finite &= torch.isfinite(values).view(rows, -1).all(1)
    if inv_mass is not None:
        finite &= (torch.isfinite(inv_mass) & (inv_mass > 0)).all(1)
    return ~finite


def _adapt_throughout(
    options: Options, chains: Chains, state: State, step: GroupStepSize
) -> tuple[Chain, Tensor]:
    """The published schedule: one rule from the first transition to the last."""
    transitions = partial(chains.adapting, step=step)
    warm = transitions(state, first=0, steps=options.warmup)
    return _draw(options, transitions, warm), step.step_size


def _warm_up_and_freeze(
    options: Options, chains: Chains, state: State, step_size: Tensor
) -> tuple[Chain, Tensor]:
    """Adapt in the warm-up only, so that what is kept leaves the posterior invariant."""
    if options.adapt == "dual_averaging":
        step = DualAveraging(step_size)
        warm = chains.adapting(state, step, first=0, steps=options.warmup)
        step_size = step.average
    else:
        warm = chains.frozen(state, step_size, first=0, steps=options.warmup)
    return _draw(options, partial(chains.frozen, step=step_size), warm), step_size


def _draw(options: Options, transitions: Callable[..., Chain], warm: Chain) -> Chain:
    """All transitions after the warm-up; the first few are not kept where T does not divide."""
    skipped = options.steps - options.kept * options.thin
    first = options.warmup
    before = transitions(_end(warm), first=first, steps=skipped)
    run = transitions(
        _end(before), first=first + skipped, steps=options.steps - skipped, thin=options.thin
    )
    return run._replace(
        accepted=before.accepted + run.accepted, divergent=before.divergent + run.divergent
    )


def _end(chain: Chain) -> State:
    return State(chain.z, chain.U, chain.grad)


def _result(options: Options, run: Chain, step_size: Tensor, failed: Tensor) -> HMCResult:
    rows = len(failed), options.chains
    accept_rate = run.accepted.view(rows).to(step_size.dtype) / options.steps
    return HMCResult(
        z=_blank(run.draws.view(*rows, *run.draws.shape[1:]), failed),
        accept_rate=_blank(accept_rate, failed),
        step_size=_blank(step_size, failed),
        energy=_blank(run.energies.view(*rows, -1), failed),
        divergent=run.divergent.view(rows).masked_fill(failed.unsqueeze(1), 0),
        failed=failed,
    )


def _blank(values: Tensor, failed: Tensor) -> Tensor:
    """NaN in failed rows."""
    return values.masked_fill(failed.view(-1, *[1] * (values.ndim - 1)), torch.nan)
