"""``compat=``: the projected gradient steps of other attack libraries, for our objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaefast import checks
from vaefast.attacks import presets
from vaefast.attacks.ascent import ProjectedAscent, StepForm
from vaefast.attacks.ball import Ball
from vaefast.attacks.penalty import SOFT
from vaefast.attacks.presets import Preset
from vaefast.attacks.random_start import Stream, radius_uniform, uniform_in_ball
from vaefast.attacks.random_start import uniform_in_cube as cube

__all__ = ["LIBRARIES", "compatible", "rule_of"]

Start = Callable[[Ball, Stream], Tensor]
EVERY = ("linf", "l2")


@dataclass(frozen=True)
class Library:
    """How a library takes projected gradient steps.

    Args:
        form: of the step.
        start: where it begins at random.
        steps: how many by default; None: the caller says.
        share: of the radius that a step has by default; None likewise.
    """

    form: StepForm
    start: Mapping[str, Start]
    steps: Mapping[str, int] | None
    share: Mapping[str, float] | None


LIBRARIES = {
    "torchattacks": Library(
        StepForm(added=1e-10),
        {"linf": uniform_in_ball, "l2": radius_uniform},
        dict.fromkeys(EVERY, 10),
        {"linf": 1 / 4, "l2": 1 / 5},
    ),
    "foolbox": Library(
        StepForm(floor=1e-12),
        dict.fromkeys(EVERY, uniform_in_ball),
        {"linf": 40, "l2": 50},
        {"linf": 1 / 30, "l2": 1 / 40},
    ),
    "art": Library(
        StepForm(order="clip_project"),
        dict.fromkeys(EVERY, uniform_in_ball),
        dict.fromkeys(EVERY, 100),
        dict.fromkeys(EVERY, 1 / 3),
    ),
    "cleverhans": Library(
        StepForm(order="clip_project", floor=1e-6), dict.fromkeys(EVERY, cube), None, None
    ),
}


def rule_of(
    preset: str | None, attack: str, compat: str | None, optimizer: str | None, penalty: Any = None
) -> Preset:
    """The preset of an attack, or of its penalised form.

    Raises:
        ValueError: what excludes each other, or no such preset.
    """
    ways = {"compat": compat, "preset": preset, "optimizer": optimizer, "penalty": penalty}
    asked = [name for name, value in ways.items() if value is not None]
    if compat is not None and len(asked) > 1:
        raise ValueError(f"compat says how to step, and so does {asked[1]}; leave one of them out")
    if penalty is None:
        return presets.find(preset, attack)
    if preset is not None:
        raise ValueError("penalty has settings of its own, and so has preset; leave one out")
    usual = presets.find(None, attack)
    return replace(SOFT, options={**usual.options, **SOFT.options})


def compatible(
    rule: Preset, compat: str | None, given: Mapping[str, Any], **own: Any
) -> tuple[Preset, dict[str, Any]]:
    """The preset and the options with what the library has in their place.

    Args:
        rule: the attack's defaults.
        compat: the library, or None.
        given: the options, the caller's over the preset's.
        own: ``alpha`` and ``steps`` as the caller gave them, or None.

    Raises:
        ValueError: no such library, another norm, or a library without a default of what is
            missing.
    """
    options = dict(given)
    if compat is None:
        return rule, options
    library = LIBRARIES[checks.option(compat, "compat", LIBRARIES)]
    options |= own
    norm = options["norm"]
    if norm not in EVERY:
        raise ValueError(f'compat={compat!r} has norm "linf" and "l2", got {norm!r}')
    for name, known in (("steps", library.steps), ("alpha", library.share)):
        if options[name] is None and known is None:
            raise ValueError(f"{compat} has no default of {name}; pass {name}=")
    if options["steps"] is None and library.steps is not None:
        options["steps"] = library.steps[norm]
    if options["alpha"] is None and library.share is not None:
        options["alpha"] = _share(options["eps"], library.share[norm])
    form = library.form if norm == "l2" else StepForm(order=library.form.order)
    start, ascent = library.start[norm], partial(ProjectedAscent, form=form)
    return replace(rule, start=start, ascent=ascent, select="last"), options


def _share(eps: Any, share: float) -> Any:
    """A step length; what is no radius is found when the radius is checked."""
    return share * eps if isinstance(eps, int | float | torch.Tensor) else 0.0
