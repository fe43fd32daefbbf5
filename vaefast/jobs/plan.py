"""What a run computes: on which inputs, with which model, in words that a file can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vaefast import checks
from vaefast.certify.level import Over, inputs_of
from vaefast.models import VAE
from vaefast.runtime.tiles import TILES

__all__ = ["RunPlan"]

TASKS = (
    "margin",
    "robust_probability",
    "empirical_margin",
    "latent",
    "max_damage",
    "defend",
    "spectrum",
)
WITH_RADII = ("margin", "robust_probability", "empirical_margin")
OURS = ("r", "alpha", "seed", "index", "precision", "context", "probability", "certified")


@dataclass(frozen=True)
class RunPlan:
    """What a run computes.

    Attributes:
        model: a VAE of ours (or, in a plan that was read back, the file that holds it), the path of
            a .safetensors file, or ``package.module:make_vae`` or ``file.py:make_vae``.
        data: what :func:`vaefast.jobs.open_source` opens; objects only for workers inside this
            process.
        task: "margin", "robust_probability", "empirical_margin", "latent" or "max_damage"
            (attacks), "defend" (chains on the true posterior) or "spectrum".
        r: radii of the first three, ℓ2 over all entries, pixel scale. All m of them come from the
            same draws, each at level α/m, so that one statement holds for all. Empty: one, the
            90 % quantile of the model's own spread, found when the run is created.
        alpha: error probability.
        level: "input", where ``alpha`` is that of each input; "run", where it is that of all n of
            them, each of which gets alpha/n (Bonferroni); or the number of inputs that share it.
        options: further arguments of the task's function, plain values: ``method`` and ``samples``
            of margins, ``eps`` and ``steps`` of attacks.
        seed: of all random numbers.
        precision: as in the task's function, of those that take one.
        shard_size: inputs that are written together.
        inputs: how many are taken, from the first; None for all.
        box: smallest and largest valid entry; None as the source has it.
        labels: as ``vaefast audit --labels``.
        data_root: folder of the known sets.
        model_options: ``likelihood``, ``obs_std``, ``decoder_output``, ``encoder_output``: for a
            module that a function makes.
        arrays: whether the table holds arrays of each row (attacked inputs, reconstructions)
            besides numbers; default for attacks and the defence.
        device: "cpu" or "cuda".
        tile: rows of a GPU program, pinned.
        attempts: how often a failed row, or a shard whose worker died, is tried.
        band: of "robust_probability": keep the upper half of each row's distances, so that r can
            still be chosen when all is computed; a statement more that shares α.
        r_from: of the plan of a run, what its r is where none was given; not to be set.
    """

    model: VAE | str | Path
    data: Any
    task: str = "margin"
    r: tuple[float, ...] = ()
    alpha: float = 1e-3
    level: Over = "input"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    precision: str = "ieee"
    shard_size: int = 4096
    inputs: int | None = None
    box: tuple[float, float] | None = None
    labels: str | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data_root: str | None = None
    arrays: bool | None = None
    device: str = "cpu"
    tile: int = 64
    attempts: int = 3
    band: bool = False
    r_from: str = ""

    def __post_init__(self) -> None:
        radii = (self.r,) if isinstance(self.r, (int, float)) else self.r
        object.__setattr__(self, "r", tuple(float(r) for r in radii))
        checks.option(self.task, "task", TASKS)
        inputs_of(self.level, 1)  # a word or a number
        checks.option(self.tile, "tile", TILES)
        for name in ("shard_size", "attempts"):
            checks.count(getattr(self, name), name)
        if self.inputs is not None:
            checks.count(self.inputs, "inputs")
        if not 0 < checks.number(self.alpha, "alpha") < 1:
            raise ValueError(f"alpha must lie in (0, 1), got {self.alpha:g}")
        self._check_radii()
        self._check_band()
        self._check_options()

    def _check_radii(self) -> None:
        if self.r and self.task not in WITH_RADII:
            raise ValueError(f"task {self.task!r} takes no r, got r={list(self.r)}")
        if not all(math.isfinite(r) and r >= 0 for r in self.r):
            raise ValueError(f"r must be finite and at least 0, got {list(self.r)}")
        if len({f"{r:g}" for r in self.r}) < len(self.r):
            raise ValueError(f"r must differ in six digits, as they name columns, got {self.r}")

    def _check_band(self) -> None:
        if not self.band:
            return
        if self.task != "robust_probability":
            raise ValueError(f"band is of task 'robust_probability', got task={self.task!r}")
        if self.precision != "ieee":
            raise ValueError(f'band needs precision "ieee", got "{self.precision}"')
        if self.alpha > 0.5:
            raise ValueError(f"alpha of a band must be at most 1/2, got {self.alpha:g}")

    def _check_options(self) -> None:
        own = sorted(set(self.options) & {*OURS})
        if own:
            raise ValueError(f"options must leave out {', '.join(own)}: a run has its own")
        budget = self.options.get("budget")
        if isinstance(budget, Mapping) and budget.get("seconds") is not None:
            raise ValueError(
                "budget.seconds makes numbers depend on the machine's speed, and those of a run "
                "must not; leave it out and set budget.samples or budget.flop"
            )

    @property
    def keeps_arrays(self) -> bool:
        """Whether rows hold arrays."""
        if self.arrays is not None:
            return self.arrays
        return self.task in ("latent", "max_damage", "defend")

    def alpha_of_one(self, inputs: int) -> float:
        """The error probability of one statement, of one input at one radius."""
        count = max(1, len(self.r) + self.band) * inputs_of(self.level, inputs)
        return self.alpha / count

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the model and the data by name."""
        if isinstance(self.model, VAE):
            raise TypeError("a plan with a model in memory has no file form; save the model first")
        values = asdict(replace(self, data=None))
        values |= {"model": str(self.model), "data": self.data}
        return values | {"options": dict(self.options), "model_options": dict(self.model_options)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunPlan:
        """The plan that :meth:`as_json` described."""
        known = {f.name for f in fields(cls)}
        found = {name: value for name, value in values.items() if name in known}
        found["r"] = tuple(found["r"])
        found["box"] = None if found["box"] is None else tuple(found["box"])
        return cls(**found)
