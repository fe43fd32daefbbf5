"""Hamiltonian Monte Carlo on the true posterior: batched, one target per row."""

from vaefast.hmc.defend import defend
from vaefast.hmc.diagnostics import Diagnostics
from vaefast.hmc.groups import KUZINA2022
from vaefast.hmc.health import SamplerWarning
from vaefast.hmc.latent_groups import (
    GroupDefence,
    GroupDraws,
    defend_groups,
    sample_groups,
)
from vaefast.hmc.result import Defence, HMCResult
from vaefast.hmc.sample import sample
from vaefast.hmc.tune import tune

__all__ = [
    "KUZINA2022",
    "Defence",
    "Diagnostics",
    "GroupDefence",
    "GroupDraws",
    "HMCResult",
    "SamplerWarning",
    "defend",
    "defend_groups",
    "sample",
    "sample_groups",
    "tune",
]
