"""Named settings: the defaults of the attacks, and those of published attacks.

A preset is plain data (argument defaults) and two rules (how a restart begins, how it goes on).
An argument that the caller passes explicitly replaces the preset's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from vaefast import checks
from vaefast.attacks.ascent import SHRINKING, AscentRule, PlateauAscent, ProjectedAscent
from vaefast.attacks.ball import Ball
from vaefast.attacks.random_start import Stream, gaussian, uniform_in_ball, zero

__all__ = ["PRESETS", "Preset", "find"]

Box = tuple[float, float]


@dataclass(frozen=True)
class Preset:
    """Argument defaults and rules of an attack.

    Attributes:
        attack: ``"latent"`` or ``"max_damage"``.
        options: defaults of that function's arguments; without ``low`` and ``high`` the box is
            that of each input's own smallest and largest entry, and [0, 1] stands for the range
            of pixels, which is the model's box where it names one.
        source: the publication and the code the setting was read in.
        differs: where this implementation differs from that code.
        start: where a restart begins.
        ascent: how it goes on.
        select: return the ``"best"`` iterate of a restart, or its ``"last"``.
        targeted: the setting needs a target.
    """

    attack: str
    options: Mapping[str, Any]
    source: str = ""
    differs: str = ""
    start: Callable[[Ball, Stream], Tensor] = uniform_in_ball
    ascent: AscentRule = ProjectedAscent
    select: str = "best"
    targeted: bool = False

    def fill(self, box: Box | None, **given: Any) -> dict[str, Any]:
        """The given options, with the preset's where none (None) was given.

        Args:
            box: the model's, which stands in for [0, 1]; None where the model names none.
        """
        usual = dict(self.options)
        if box is not None and (usual.get("low"), usual.get("high")) == (0.0, 1.0):
            usual["low"], usual["high"] = box
        return {name: usual.get(name) if value is None else value for name, value in given.items()}


def find(name: str | None, attack: str) -> Preset:
    """The preset of that name, or the attack's defaults.

    Raises:
        ValueError: there is no such preset for this attack.
    """
    if name is None:
        return DEFAULTS[attack]
    fitting = {key: preset for key, preset in PRESETS.items() if preset.attack == attack}
    return fitting[checks.option(name, "preset", fitting)]


_SEARCH = {"steps": 50, "restarts": 1, "low": 0.0, "high": 1.0, "keep": "best"}

DEFAULTS = {
    "latent": Preset("latent", {**_SEARCH, "norm": "linf", "divergence": "skl"}),
    "max_damage": Preset(
        "max_damage", {**_SEARCH, "norm": "l2", "noise_samples": 8, "fresh_samples": 128}
    ),
}

_KUZINA = (
    "Kuzina, Welling, Tomczak 2022, Alleviating adversarial attacks on VAEs with MCMC; "
    "AKuzina/defend_vae_mcmc, attack/attacker.py"
)
_KUZINA_DIFFERS = (
    "all inputs and restarts in one batch with one plateau schedule per row, where the code runs "
    "them one at a time (the same iterates); Philox in place of torch.randn. As published: eps is "
    "0.1 or 0.2; under l2 the rescaled perturbation has norm eps*sqrt(D), outside the ball; "
    "iterate 0 of the history is not projected to the ball"
)

PRESETS = {
    "kuzina2022": Preset(
        "latent",
        {
            "norm": "linf",
            "divergence": "skl",
            "alpha": 1.0,
            "steps": 50,
            "restarts": 10,
            "keep": "all",
        },
        source=_KUZINA,
        differs=_KUZINA_DIFFERS,
        start=partial(gaussian, std=0.2),
        ascent=PlateauAscent,
        select="last",
    ),
    "kuzina2022-supervised": Preset(
        "latent",
        {
            "norm": "linf",
            "divergence": "skl",
            "alpha": 1.0,
            "steps": 500,
            "restarts": 1,
            "keep": "best",
        },
        source=_KUZINA,
        differs=_KUZINA_DIFFERS + "; one target per call, repeat x for several",
        start=zero,
        ascent=PlateauAscent,
        select="last",
        targeted=True,
    ),
    "barrett2022": Preset(
        "max_damage",
        {
            **_SEARCH,
            "norm": "l2",
            "steps": 100,
            "restarts": 5,
            "noise_samples": 8,
            "fresh_samples": 40,
        },
        source=(
            "Barrett, Camuto, Willetts, Rainforth 2022, Certifiably robust VAEs; "
            "FabianBarrett/Lipschitz_VAEs, max_damage_attack.py"
        ),
        differs=(
            "batched l2 PGD in place of L-BFGS-B (m=100, factr=10, up to 15,000 iterations, one "
            "image and one restart at a time); the centre is g(mean(x)) as in Camuto et al. 2021, "
            "where the code draws it at random; 8 noise samples held fixed over the steps, where "
            "it draws one anew at every evaluation; the start is uniform in volume, where its "
            "radius is multiplied by another uniform number; the objective is reported on 40 "
            "fresh samples"
        ),
    ),
    "photoguard": Preset(
        "latent",
        {
            "eps": 0.06,
            "norm": "linf",
            "divergence": "means",
            "alpha": 0.01,
            "steps": 1000,
            "restarts": 1,
            "low": -1.0,
            "high": 1.0,
            "keep": "best",
        },
        source=(
            "Salman et al. 2023, Raising the cost of malicious AI-powered image editing; "
            "MadryLab/photoguard, encoder attack"
        ),
        differs=(
            "images in [-1, 1]; the objective is minus the squared distance of the means, where "
            "the code uses the distance (the same signs, so the same steps); no mask; float32 "
            "perturbation, where the code's is float16"
        ),
        ascent=SHRINKING,
        select="last",
        targeted=True,
    ),
    "mist": Preset(
        "latent",
        {
            "eps": 32 / 255,
            "norm": "linf",
            "divergence": "means",
            "alpha": 2 / 255,
            "steps": 100,
            "restarts": 1,
            "low": -1.0,
            "high": 1.0,
            "keep": "best",
        },
        source="Liang, Wu 2023, Mist; psyker-team/mist, mist_v3.py, textural loss (mode 1)",
        differs=(
            "images in [-1, 1]; the encoding is the posterior mean, where the code draws a sample "
            "and scales it by a constant; the target is encoded once, not at every step; the "
            "semantic and the fused loss are not included; no mask"
        ),
        select="last",
        targeted=True,
    ),
}
