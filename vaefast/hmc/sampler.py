"""The chains of the rows of a call, from their start to the kept draws."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaefast import philox
from vaefast.functional.chain import Chain
from vaefast.functional.hmc import Draws, State
from vaefast.functional.rows import repeated
from vaefast.hmc.adaptation import DualAveraging, StepSize
from vaefast.hmc.divergences import diverging
from vaefast.hmc.groups import GroupStepSize
from vaefast.hmc.health import Origin, check_copies, check_prior, immobile, unresolved
from vaefast.hmc.inputs import Inputs
from vaefast.hmc.options import Options
from vaefast.hmc.plan import Plan, beside_prior, likelihood_of, planned
from vaefast.hmc.potential import is_standard
from vaefast.hmc.resolution import Resolution, resolution
from vaefast.hmc.result import HMCResult
from vaefast.hmc.spans import Span, kept_draws
from vaefast.hmc.target import GenericTarget, NetworkTarget, Target
from vaefast.models import context as conditions
from vaefast.models.mixture import closed_form
from vaefast.models.prepare import Prepared
from vaefast.runtime.batching import PaddedBatch
from vaefast.runtime.capture import OFF, Graphs
from vaefast.runtime.reasons import Reasons, reasons
from vaefast.types import Network

__all__ = ["sampled", "target_of"]


def sampled(
    prepared: Prepared,
    *,
    init: Tensor | None,
    step_size: float | Tensor,
    mass: str | Tensor | None,
    group: int | Tensor | None,
    numbered: bool,
    backend: str | None,
    progress: bool,
    **scalars: Any,
) -> HMCResult:
    """:func:`vaefast.hmc.sample` on prepared rows; ``numbered``: the caller passed ``index``."""
    options = Options.checked(mass=mass, **scalars)
    inputs = Inputs.checked(
        prepared, options, init=init, step_size=step_size, mass=mass, group=group, numbered=numbered
    )
    with planned(prepared, inputs, options, backend, progress) as plan:
        for batch in plan.batches():
            chains = _Chains(plan, batch)
            for span in plan.spans:
                step = chains.step_for(span)
                run = chains.target.run(
                    chains.state,
                    chains.draws,
                    step,
                    first_step=span.first_step,
                    steps=span.steps,
                    thin=span.thin,
                )
                chains.take(span, run)
                plan.tick(span.steps)
            plan.store(batch, chains.result())
    return plan.finished()


class _Chains:
    """The chains of one batch of rows; rows do not influence each other.

    Under a schedule the rows of a group share a step size.
    """

    def __init__(self, plan: Plan, batch: PaddedBatch) -> None:
        rows, inputs = plan.prepared.at(batch.gather), plan.inputs.at(batch.gather)
        self._options, self._dtype = plan.options, inputs.step_size.dtype
        self.draws = Draws(rows.index, plan.options.seed, plan.options.jitter)
        z, inv_mass = _start(plan, rows, inputs)
        self.target = target_of(
            rows,
            plan.options,
            plan.decoder,
            inv_mass,
            self._dtype,
            plan.backend,
            plan.captures,
        )
        self.state = State(z, *self.target.potential(z))
        if plan.decoder is None:
            check_copies(self.state.U, batch, plan.prepared.vae)
            if not is_standard(rows.vae):
                check_prior(rows.vae, z, conditions.repeated(rows.context, plan.options.chains))
        self._origin = Origin(rows.x, inputs.init, inv_mass, self.state)
        self._failed = self._origin.failed()
        self._step = _step_size(plan.options, inputs, self._failed)
        self._warm = self.state  # after the warm-up
        self._parts: list[tuple[Span, Chain]] = []  # after the warm-up

    def step_for(self, span: Span) -> Tensor | StepSize:
        """Step sizes of a span; what was learnt is frozen when the warm-up is over."""
        if span.first_step == self._options.warmup and not isinstance(self._step, Tensor):
            self._step = self._step.after_warmup()
        if isinstance(self._step, Tensor):
            self._step = self._step.to(self._dtype)
        return self._step

    def take(self, span: Span, run: Chain) -> None:
        """Go on from the end of a run of the target."""
        if span.first_step == self._options.warmup:
            self._warm = self.state
        self.state = State(run.z, run.U, run.grad)
        if span.first_step >= self._options.warmup:
            self._parts.append((span, run))

    def result(self) -> HMCResult:
        failed, options = self._failed, self._options
        rows = len(failed), options.chains
        z, U = kept_draws(options, self._parts)
        accepted = _total([run.accepted for _, run in self._parts])
        divergent = _total([run.divergent for _, run in self._parts])
        step = self._step if isinstance(self._step, Tensor) else self._step.step_size
        fine = resolution(
            partial(self.target.potential, safe=self.state.z),
            self.state,
            step,
            self._origin.inv_mass,
            exact=isinstance(self.target, NetworkTarget),
        )
        accepted, divergent = accepted.view(rows), divergent.view(rows)
        blank = partial(_blank, failed=failed) if bool(failed.any()) else _as_it_is
        return HMCResult(
            z=blank(z.unflatten(0, rows)),
            accept_rate=blank(accepted.to(self._dtype) / options.steps),
            step_size=blank(step.to(self._dtype)),
            energy=blank(U.unflatten(0, rows)),
            divergent=divergent.masked_fill(failed.unsqueeze(1), 0),
            failed=failed,
            unresolved=fine.unresolved & ~failed,
            rounding=blank(fine.rounding),
            reasons=self._reasons(fine, accepted, divergent),
            diverging=self._diverging(z, divergent, step),
        )

    def _diverging(self, z: Tensor, divergent: Tensor, step: Tensor) -> Tensor | None:
        """[B, C, T], where some transitions diverged and draws and steps can tell which."""
        failed, options = self._failed, self._options
        divergent = divergent.masked_fill(failed.unsqueeze(1), 0)
        if options.kept < options.steps or options.schedule or not bool(divergent.any()):
            return None
        found = diverging(
            self.target,
            self.draws,
            self._warm,
            z,
            divergent.flatten(),
            first_step=options.warmup,
            step=step.to(self._dtype),
        )
        return found.unflatten(0, divergent.shape)

    def _reasons(self, fine: Resolution, accepted: Tensor, divergent: Tensor) -> Reasons:
        """Of every row the first thing that is wrong with it; mostly there is none."""
        wrong = self._failed | fine.unresolved | (accepted == 0).any(1)
        if not bool(wrong.any()):
            return ("",) * len(wrong)
        causes = unresolved(fine, self._dtype) | immobile(accepted, divergent, self._options.steps)
        causes = {cause: mask & ~self._failed for cause, mask in causes.items()}
        return reasons(len(wrong), self._origin.causes() | causes)


def _start(plan: Plan, rows: Prepared, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """z₀ [N, d], a draw from q(z|x) where none was given, and the inverse mass."""
    init, inv_mass = inputs.init, inputs.inv_mass
    dtype, chains = inputs.step_size.dtype, plan.options.chains
    if init is None or plan.options.posterior_mass:
        mean, std = (values.to(dtype) for values in _posterior(rows))
        if plan.options.posterior_mass:
            inv_mass = std.square()
    if init is not None:
        return init.flatten(0, 1).contiguous(), inv_mass
    lane = torch.arange(chains, device=mean.device).repeat(len(mean)) if chains > 1 else 0
    noise = philox.normal(
        mean.shape[1],
        seed=plan.options.seed,
        index=repeated(rows.index, chains),
        lane=lane,
        use=philox.Use.INITIAL,
        dtype=dtype,
    )
    return repeated(mean, chains) + repeated(std, chains) * noise, inv_mass


def _posterior(rows: Prepared) -> tuple[Tensor, ...]:
    """μ and σ, [B, d] each; an encoder that is no network has batches of its own."""
    return rows.rows(
        lambda part: part.maps.posterior(part.x),
        rows.maps.mean.bytes_per_row(rows.x.element_size()),
        generic=rows.maps.generic("encoder"),
    )


def target_of(
    rows: Prepared,
    options: Options,
    decoder: Network | None,
    inv_mass: Tensor | None,
    dtype: torch.dtype,
    backend: str | None,
    captures: Graphs = OFF,
) -> Target:
    """The posterior of these rows, C chains each; ``decoder`` None: by the modules."""
    pixels, likelihood = rows.x.flatten(1).to(dtype), likelihood_of(rows, options)  # [B, D]
    if decoder is None:
        net = beside_prior(rows)
        if net is not None:
            net = rows.packs.packed("decoder", net, backend=backend, uses=options.transitions + 1)
        return GenericTarget(
            x=pixels,
            forms=rows.maps.forms.in_layout(options.memory_format),
            likelihood=likelihood,
            inv_mass=inv_mass,
            leapfrog=options.leapfrog,
            backend=backend,
            precision=options.precision,
            captures=captures,
            context=conditions.repeated(rows.context, options.chains),
            net=net,
            prior=closed_form(rows.vae),
        )
    return NetworkTarget(
        x=pixels,
        net=decoder,
        likelihood=likelihood,
        likelihood_params=rows.vae.likelihood_params,
        inv_mass=inv_mass,
        leapfrog=options.leapfrog,
        precision=options.precision,
        backend=backend,
    )


def _step_size(options: Options, inputs: Inputs, failed: Tensor) -> Tensor | StepSize:
    if options.schedule == "kuzina2022":
        return GroupStepSize(inputs.step_size, inputs.group, ~failed)
    dual = options.adapt == "dual_averaging"
    return DualAveraging(inputs.step_size) if dual else inputs.step_size


def _total(counts: list[Tensor]) -> Tensor:
    return counts[0] if len(counts) == 1 else torch.stack(counts).sum(0)


def _as_it_is(values: Tensor) -> Tensor:
    return values


def _blank(values: Tensor, failed: Tensor) -> Tensor:
    """NaN in failed rows."""
    return values.masked_fill(failed.view(-1, *[1] * (values.ndim - 1)), torch.nan)
