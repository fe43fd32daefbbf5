"""The sampler's options, checked once and with the schedule's values filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.hmc.adaptation import TARGET_ACCEPT
from vaefast.hmc.mass import MASSES
from vaefast.models.forms import LAYOUTS
from vaefast.philox import MAX_LANE, check_seed

__all__ = [
    "EVERY",
    "Options",
    "chain_starts",
    "inverse_mass",
    "positive_step_size",
    "with_unit_mass",
]

MIN_CHAINS = 8  # of a row, from which its path length is learnt
PUBLISHED_LEAPFROG = 20
WARMUP, LEAPFROG = 500, 10
UNKNOWN = -1.0  # a jitter, until it is known which path length it belongs to
JITTER, OF_A_QUARTER = 0.2, 0.4  # a quarter is a rounded number of leapfrogs, of a guessed period
EVERY = 64  # transitions, of which one is looked at; that costs another one
PATHS = ("quarter", "chees")
METRIC_FROM = 50  # transitions of warm-up, from which the default is a metric
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
    mass: str  # one of MASSES, "given", or "default" until the model is known
    precision: str
    memory_format: str | None
    seed: int
    target_accept: float = TARGET_ACCEPT
    path: str | None = None  # one of PATHS, where every row has a number of leapfrogs of its own

    @property
    def posterior_mass(self) -> bool:
        return self.mass == "posterior"

    @property
    def adapts_mass(self) -> bool:
        """Whether the warm-up's draws give a mass, or the point that a dense one is taken at."""
        return self.mass == "warmup" or (self.mass == "dense" and self.warmup >= METRIC_FROM)

    @property
    def thin(self) -> int:
        """Transitions from one kept draw to the next; the last transition is always kept."""
        return self.steps // self.kept

    @property
    def transitions(self) -> int:
        return self.warmup + self.steps

    @property
    def looks_at_errors(self) -> bool:
        """Whether energy errors are looked at: of chains that are long, whole and frozen."""
        return self.kept == self.steps >= EVERY and self.schedule is None

    @property
    def wants_metric(self) -> bool:
        """Whether the default mass is other than the unit, if the decoder lowers."""
        return self.mass == "default" and self.warmup >= METRIC_FROM and self.precision == "ieee"

    def of_model(self, default: str = "unit") -> Options:
        """With the mass, L and jitter of a model whose mass is ``default`` if none was named."""
        mass, path = self.mass, self.path
        if mass == "default":
            mass = default
        if mass in ("dense", "warmup") and not self.leapfrog:
            path = path or "quarter"
        jitter = self.jitter
        if jitter == UNKNOWN:
            jitter = OF_A_QUARTER if path == "quarter" else JITTER
        leapfrog = self.leapfrog or LEAPFROG
        return self._replace(mass=mass, path=path, leapfrog=leapfrog, jitter=jitter)

    @classmethod
    def checked(
        cls,
        *,
        chains: int,
        steps: int,
        warmup: int | None,
        leapfrog: int | str | None,
        adapt: str | None,
        jitter: float | None,
        mass: str | Tensor | None,
        schedule: str | None,
        keep: str | int | None,
        precision: str,
        memory_format: str | None,
        seed: int,
        target_accept: float | None = None,
    ) -> Options:
        """Check every option; None becomes the default of the schedule."""
        checks.option(schedule, "schedule", SCHEDULES)
        checks.option(adapt, "adapt", ADAPT)
        steps = checks.count(steps, "steps")
        published = schedule == "kuzina2022"
        if published:
            _refuse_fixed(warmup=warmup, jitter=jitter, mass=mass)
        path = None
        if isinstance(leapfrog, str):
            path = checks.option(leapfrog, "leapfrog", PATHS)
            _require_own(path, chains, adapt, warmup, published)
            leapfrog = None
        defaults: tuple[int, int | None, float, str] = (steps // 2, PUBLISHED_LEAPFROG, 0.0, "last")
        if not published:
            defaults = (WARMUP, None, UNKNOWN, "all")
        default_warmup, default_leapfrog, default_jitter, default_keep = defaults
        return cls(
            chains=_chains(chains),
            steps=steps,
            warmup=default_warmup if warmup is None else checks.count(warmup, "warmup", 0),
            leapfrog=_leapfrog(default_leapfrog if leapfrog is None else leapfrog),
            adapt=None if published else adapt,
            jitter=default_jitter if jitter is None else _jitter(jitter),
            schedule=schedule,
            kept=_kept(default_keep if keep is None else keep, steps),
            mass=_mass_name(mass, adapts=not published and adapt is not None),
            precision=_products(precision),
            memory_format=_layout(memory_format),
            seed=check_seed(seed),
            target_accept=_target_accept(target_accept),
            path=path,
        )


def with_unit_mass(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of :func:`vaefast.hmc.sample` whose default mass is "unit"."""
    fixed = options.get("mass") is not None or options.get("schedule") is not None
    return {**options} if fixed else {**options, "mass": "unit"}


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
            f"mass must be a name, [d] = [{latents}] or [B, d] = [{rows}, {latents}], "
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
                'schedule="kuzina2022" fixes warmup (steps // 2), jitter (0) and mass ("unit"), '
                f"got {name}={value!r}; leave it out"
            )


def _require_own(
    path: str, chains: int, adapt: str | None, warmup: int | None, published: bool
) -> None:
    """A row's own path length is not in the schedule; "chees" is learnt, from enough chains."""
    few = checks.count(chains, "chains") < MIN_CHAINS
    if published:
        need = "no schedule, which fixes leapfrog"
    elif path == "chees" and (adapt is None or warmup == 0):
        need = 'adapt="dual_averaging" and a warm-up'
    elif path == "chees" and few:
        need = f"{MIN_CHAINS} chains or more"
    else:
        return
    raise ValueError(f'leapfrog="{path}" needs {need}; pass a number of leapfrogs instead')


def _leapfrog(leapfrog: int | None) -> int:
    """0 until the mass is known that the default belongs to."""
    return 0 if leapfrog is None else checks.count(leapfrog, "leapfrog")


def _mass_name(mass: str | Tensor | None, adapts: bool) -> str:
    """A step size that does not adapt is in units of z, unless a mass is asked for."""
    if mass is None:
        return "default" if adapts else "unit"
    return checks.option(mass, "mass", MASSES) if isinstance(mass, str) else "given"


def _target_accept(target: float | None) -> float:
    if target is None:
        return TARGET_ACCEPT
    if not 0.0 < checks.number(target, "target_accept") < 1.0:
        raise ValueError(f"target_accept must lie in (0, 1), got {target:g}")
    return float(target)


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
