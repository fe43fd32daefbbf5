"""Attacks on a VAE: perturbations of its input that change what it believes or reconstructs."""

from vaefast.attacks.damage import max_damage
from vaefast.attacks.damage_curve import DamageCurve, damage_curve
from vaefast.attacks.divergences import DIVERGENCES
from vaefast.attacks.geometric import geometric
from vaefast.attacks.latent import latent
from vaefast.attacks.latent_groups import latent_groups
from vaefast.attacks.presets import PRESETS, Preset
from vaefast.attacks.result import AttackResult, AttackWarning

__all__ = [
    "DIVERGENCES",
    "PRESETS",
    "AttackResult",
    "AttackWarning",
    "DamageCurve",
    "Preset",
    "damage_curve",
    "geometric",
    "latent",
    "latent_groups",
    "max_damage",
]
