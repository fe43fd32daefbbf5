"""The chains of the rows of a call, from their start to the kept draws."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaefast.functional.chain import Chain
from vaefast.functional.hmc import Draws, State
from vaefast.hmc.adaptation import DualAveraging, StepSize
from vaefast.hmc.chees import OwnLengths, PathLengths, QuarterPeriod
from vaefast.hmc.divergences import diverging
from vaefast.hmc.energy_errors import energy_errors
from vaefast.hmc.groups import GroupStepSize
from vaefast.hmc.health import Origin, check_copies, check_prior, immobile, unresolved
from vaefast.hmc.inputs import Inputs
from vaefast.hmc.mass import DENSE_UP_TO, Metric
from vaefast.hmc.options import Options
from vaefast.hmc.plan import Plan, beside_torch, likelihood_of, lowered, planned
from vaefast.hmc.potential import is_standard
from vaefast.hmc.resolution import Resolution, resolution
from vaefast.hmc.result import HMCResult
from vaefast.hmc.spans import Span, kept_draws
from vaefast.hmc.start import metric_from, start
from vaefast.hmc.target import GenericTarget, NetworkTarget, Target
from vaefast.hmc.whitened import Whitened, inside
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
    options = options.of_model(_default_mass(prepared, options))
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


def _default_mass(prepared: Prepared, options: Options) -> str:
    """Of a decoder that runs in the fused ops: by the latents, never by the batch."""
    if not options.wants_metric or lowered(prepared, options) is None:
        return "unit"
    return "dense" if prepared.maps.latents <= DENSE_UP_TO else "warmup"


class _Chains:
    """The chains of one batch of rows; rows do not influence each other.

    Under a schedule the rows of a group share a step size.
    """

    def __init__(self, plan: Plan, batch: PaddedBatch) -> None:
        rows, inputs = plan.prepared.at(batch.gather), plan.inputs.at(batch.gather)
        self._options, self._dtype = plan.options, inputs.step_size.dtype
        self.draws = Draws(rows.index, plan.options.seed, plan.options.jitter)
        z, metric = start(plan, rows, inputs)
        self._target_with = partial(_target_with, plan, rows, self._dtype)
        self._metric_from = partial(metric_from, plan.options.mass, rows)
        self._window: list[Tensor] = []  # draws [N, n, d] from which a mass is learnt
        self._lengths = _path_lengths(plan.options, inputs)
        self.target = self._target_with(metric, self._lengths)
        self.state = State(z, *self.target.potential(z))
        if plan.decoder is None:
            check_copies(self.state.U, batch, plan.prepared.vae)
            if not is_standard(rows.vae):
                check_prior(rows.vae, z, conditions.repeated(rows.context, plan.options.chains))
        self._origin = Origin(rows.x, inputs.init, metric.inv_mass, self.state)
        self._inv_mass = metric.inv_mass
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
        elif span.thin:
            self._window.append(run.draws)
        if span.ends_window:
            self._learn_mass()

    def _learn_mass(self) -> None:
        """A mass by the window's draws, and step sizes for it; rows that failed keep none."""
        draws = torch.cat(self._window, 1).unflatten(0, (len(self._failed), -1))  # [B, C, n, d]
        self._window = []
        metric = self._metric_from(draws.flatten(1, 2))
        self._inv_mass = metric.inv_mass
        self.target = self._target_with(metric, self._lengths)
        if isinstance(self._step, DualAveraging):
            self._step = self._step.restarted()

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
            self._inv_mass,
            exact=isinstance(inside(self.target), NetworkTarget),
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
            energy_error=self._energy_error(z, step, blank),
            leapfrog=self._leapfrogs(step),
        )

    def _leapfrogs(self, step: Tensor) -> Tensor:
        """L [B] int64 of the transitions that are kept."""
        if isinstance(self.target, OwnLengths):
            return self.target.frozen(step)
        return torch.full_like(self._failed, self._options.leapfrog, dtype=torch.int64)

    def _energy_error(
        self, z: Tensor, step: Tensor, blank: Callable[[Tensor], Tensor]
    ) -> Tensor | None:
        """[B, C, n], where they are looked at."""
        options = self._options
        if not options.looks_at_errors:
            return None
        step, first = step.to(self._dtype), options.warmup
        found = energy_errors(self.target, self.draws, z, first_step=first, step=step)
        return blank(found.unflatten(0, (len(step), options.chains)))

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
        net = beside_torch(rows)
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


def _target_with(
    plan: Plan,
    rows: Prepared,
    dtype: torch.dtype,
    metric: Metric,
    lengths: PathLengths | QuarterPeriod | None,
) -> Target:
    """The posterior of these rows, its chains with this mass and these path lengths."""
    inv_mass = metric.inv_mass if metric.root is None else None
    options, backend = plan.options, plan.backend
    target = target_of(rows, options, plan.decoder, inv_mass, dtype, backend, plan.captures)
    if metric.root is not None:
        target = Whitened(target, metric.root, options.leapfrog)
    return target if lengths is None else OwnLengths(target, lengths)


def _path_lengths(options: Options, inputs: Inputs) -> PathLengths | QuarterPeriod | None:
    """What gives every row its own; None: L for all."""
    if options.path == "chees":
        return PathLengths(inputs.step_size * options.leapfrog)
    return QuarterPeriod() if options.path == "quarter" else None


def _step_size(options: Options, inputs: Inputs, failed: Tensor) -> Tensor | StepSize:
    if options.schedule == "kuzina2022":
        return GroupStepSize(inputs.step_size, inputs.group, ~failed)
    dual = options.adapt == "dual_averaging"
    return DualAveraging(inputs.step_size, options.target_accept) if dual else inputs.step_size


def _total(counts: list[Tensor]) -> Tensor:
    return counts[0] if len(counts) == 1 else torch.stack(counts).sum(0)


def _as_it_is(values: Tensor) -> Tensor:
    return values


def _blank(values: Tensor, failed: Tensor) -> Tensor:
    """NaN in failed rows."""
    return values.masked_fill(failed.view(-1, *[1] * (values.ndim - 1)), torch.nan)
