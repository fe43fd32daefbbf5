"""The ends of the defence's chains as a function of the image, which autograd passes through.

The chains are those of :func:`vaefast.hmc.defend` for the same options, seed and index, bit for
bit. Their step sizes and masses are adapted anew for each image; on the way back these and the
decisions to accept are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast import philox
from vaefast.functional.hmc import Draws, State
from vaefast.functional.rows import repeated
from vaefast.hmc.adaptation import DualAveraging, StepSize
from vaefast.hmc.adjoint import Path, pull_back, recorded
from vaefast.hmc.groups import GroupStepSize
from vaefast.hmc.inputs import Inputs
from vaefast.hmc.mass import metric_at_mean
from vaefast.hmc.options import Options
from vaefast.hmc.plan import lowered
from vaefast.hmc.sample import complete
from vaefast.hmc.sampler import target_of
from vaefast.hmc.start import posterior_draws
from vaefast.hmc.target import NetworkTarget, Target
from vaefast.models.prepare import Prepared
from vaefast.types import Network

__all__ = ["Defending"]

OWN = ("seed", "index", "context", "keep", "init", "group", "progress", "precision")


@dataclass(frozen=True)
class Defending:
    """The defence that an attack goes through.

    Args:
        options: of :func:`vaefast.hmc.defend`.
        step_size: where the adaptation starts.
        inv_mass: diagonal of M⁻¹ [d], or None.
        net: the decoder, or None where it does not lower; then no gradient passes through.
        backend: as for every op.
    """

    options: Options
    step_size: float
    inv_mass: Tensor | None
    net: Network | None
    backend: str | None

    @classmethod
    def checked(cls, prepared: Prepared, given: Mapping[str, Any]) -> Defending:
        """From the options that :func:`vaefast.hmc.defend` would be given.

        Raises:
            TypeError: no mapping, an unknown option, or a step size for each row.
            ValueError: an option that the attack sets itself, or one out of range.
        """
        if not isinstance(given, Mapping):
            raise TypeError(
                "through_defence must be a dict of options of hmc.defend, such as "
                f'{{"steps": 50}}, got {type(given).__name__}'
            )
        if taken := sorted(given.keys() & {*OWN}):
            raise ValueError(
                f"through_defence takes the options of hmc.defend but {', '.join(OWN)}, which the "
                f"attack sets; leave {taken[0]!r} out"
            )
        values = complete(**given, keep="last")
        step, mass, backend = (values[name] for name in ("step_size", "mass", "backend"))
        if isinstance(step, Tensor) and step.ndim:
            raise TypeError("through_defence takes one step_size, a number, got a tensor of rows")
        inputs = Inputs.checked(
            prepared, options := _scalars(values), init=None, step_size=step, mass=mass,
            group=None, numbered=False,
        )  # fmt: skip
        inv_mass = None if inputs.inv_mass is None else _same(inputs.inv_mass)
        if options.mass in ("dense", "warmup"):
            raise ValueError(
                f'through_defence takes mass "unit", "posterior", "pullback" or [d], '
                f'got "{options.mass}"'
            )
        if options.path is not None:
            raise ValueError(f'through_defence takes a number of leapfrogs, got "{options.path}"')
        net = lowered(prepared, options)
        if net is not None:
            net = prepared.packs.packed("decoder", net, backend=backend, uses=options.transitions)
        return cls(options, float(step), inv_mass, net, backend)

    @property
    def differentiable(self) -> bool:
        return self.net is not None

    def ends(self, part: Prepared, point: Tensor, *, seed: int, last: int | None = None) -> Tensor:
        """z_T of every chain [n·C, d], differentiable in the points.

        Args:
            part: the inputs.
            point: [n, *event], n / b points of each of the b inputs, side by side.
            seed: of all random numbers; an input's points share them.
            last: how many transitions, counted from the end, the gradient goes back through, to a
                state that is held; None: all, and the encoder.
        """
        run = self._run(part, point, seed, last)
        z: Tensor = _Through.apply(run.z, point.flatten(1), run)
        return z

    @torch.no_grad()
    def draws(self, part: Prepared, point: Tensor, *, seed: int) -> Tensor:
        """The states after each transition that follows the warm-up, [n·C, T, d]."""
        run = self._run(part, point, seed, 0)
        state, step = run.state(), run.step()
        for span in run.spans():
            chain = run.target.run(state, run.draws, step, **span.numbers, thin=int(span.kept))
            state, step = State(chain.z, chain.U, chain.grad), run.after(span, step)
        return chain.draws

    @torch.no_grad()
    def growth(self, part: Prepared, *, seed: int) -> Tensor:
        """How large the gradient of a chain's end is in its state t transitions before, t = 0 … T.

        Root mean square over an input's chains of ‖Jᵀu‖ for a random unit vector u, [T + 1, b].
        """
        run = self._run(part, part.x, seed, None)
        _, paths = run.forward()
        z = paths[-1].z
        u = philox.normal(z.shape[2], seed=seed, index=repeated(part.index, self.options.chains),
                          use=philox.Use.PROBE, dtype=z.dtype)  # fmt: skip
        up = u / torch.linalg.vector_norm(u, dim=1, keepdim=True)
        sizes = [up]
        for path in reversed(paths):
            for t in reversed(range(len(path.step))):
                up, _ = pull_back(path.part(t), up)
                sizes.append(up)
        squares = torch.stack([s.double().square().sum(1) for s in sizes])  # [T + 1, b·C]
        return squares.unflatten(1, (len(part.x), -1)).mean(2).sqrt()

    def _run(self, part: Prepared, point: Tensor, seed: int, last: int | None) -> _Run:
        times = len(point) // max(len(part.x), 1)
        index, chains = repeated(part.index, times), self.options.chains
        mean, std = part.maps.posterior(point)
        z = posterior_draws(mean, std, chains, seed=seed, index=index)
        each = torch.arange(len(part.x), device=point.device).repeat_interleave(times)
        maps = part.maps.at(each, len(point))
        rows = Prepared(maps, point.detach(), index, slice(None), point.dtype)
        inv_mass = self.inv_mass
        if inv_mass is not None:
            inv_mass = inv_mass.expand(len(point), -1).contiguous()
        elif self.options.mass != "unit":
            held = rows, mean.detach(), std.detach()
            inv_mass = metric_at_mean(self.options.mass, *held).inv_mass
        target = target_of(rows, self.options, self.net, inv_mass, mean.dtype, self.backend)
        return _Run(target, z, Draws(index, seed, self.options.jitter), self, last)


class _Span(NamedTuple):
    """Transitions that run in one call."""

    first_step: int
    steps: int
    kept: bool  # after the warm-up
    recorded: bool

    @property
    def numbers(self) -> dict[str, int]:
        return {"first_step": self.first_step, "steps": self.steps}


@dataclass(frozen=True, eq=False)
class _Run:
    """Chains of some points, on their way."""

    target: Target
    z: Tensor  # [n·C, d], where they start; may require grad
    draws: Draws
    defence: Defending
    last: int | None

    def state(self) -> State:
        z = self.z.detach()
        return State(z, *self.target.potential(z))

    def step(self) -> Tensor | StepSize:
        options, points = self.defence.options, len(self.draws.index)
        step = self.z.new_full((points,), self.defence.step_size)
        if options.schedule == "kuzina2022":
            each = torch.arange(points, device=step.device)
            return GroupStepSize(step, each, torch.ones_like(each, dtype=torch.bool))
        if options.adapt == "dual_averaging":
            return DualAveraging(step, options.target_accept)
        return step

    def after(self, span: _Span, step: Tensor | StepSize) -> Tensor | StepSize:
        """Step sizes of what follows a span: frozen once the warm-up is over."""
        warm = self.defence.options.warmup
        if span.first_step + span.steps < warm or isinstance(step, Tensor):
            return step
        frozen = step.after_warmup()
        return frozen.to(self.z.dtype) if isinstance(frozen, Tensor) else frozen

    def spans(self) -> Iterator[_Span]:
        """The warm-up and what follows, each cut where recording begins."""
        options = self.defence.options
        total = options.transitions
        begin = 0 if self.last is None else max(0, total - self.last)
        edges = sorted({0, options.warmup, begin, total})
        for first, end in pairwise(edges):
            yield _Span(first, end - first, first >= options.warmup, first >= begin)

    def forward(self) -> tuple[Tensor, list[Path]]:
        """z_T, and the paths of what was recorded."""
        state, step, paths = self.state(), self.step(), []
        if self.defence.options.warmup == 0:
            step = self.after(_Span(0, 0, False, False), step)
        for span in self.spans():
            if span.recorded and isinstance(self.target, NetworkTarget):
                chain, path = recorded(self.target, state, self.draws, step, **span.numbers)
                paths.append(path)
            else:
                chain = self.target.run(state, self.draws, step, **span.numbers)
            state, step = State(chain.z, chain.U, chain.grad), self.after(span, step)
        return state.z, paths


class _Through(torch.autograd.Function):
    """Chains forward, their adjoint back."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, pixels: Tensor, run: _Run) -> Tensor:
        end, ctx.paths = run.forward()
        ctx.held = run.last is not None and run.last < run.defence.options.transitions
        return end

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (into_z,), into_x = upstream, None
        for path in reversed(ctx.paths):
            into_z, share = pull_back(path, into_z.contiguous())
            into_x = share if into_x is None else into_x + share
        return (None if ctx.held else into_z), into_x, None


def _scalars(values: dict[str, Any]) -> Options:
    """The scalar options among those of :func:`vaefast.hmc.sample`."""
    other = ("init", "step_size", "group", "numbered", "backend", "progress")
    options = Options.checked(**{name: v for name, v in values.items() if name not in other})
    return options.of_model()


def _same(inv_mass: Tensor) -> Tensor:
    """The one diagonal [d] of all rows [B, d]."""
    if len(inv_mass) > 1 and not bool((inv_mass == inv_mass[:1]).all()):
        raise ValueError("through_defence takes one mass [d] for all rows, got [B, d]")
    return inv_mass[0]
