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
from vaefast.hmc.log_marginal import Estimate, LogMarginal, log_marginal
from vaefast.hmc.result import Defence, HMCResult
from vaefast.hmc.sample import sample
from vaefast.hmc.sample_potential import sample_posterior, sample_potential
from vaefast.hmc.tune import tune
from vaefast.hmc.tv_bound import TVBound, tv_bound

__all__ = [
    "KUZINA2022",
    "Defence",
    "Diagnostics",
    "Estimate",
    "GroupDefence",
    "GroupDraws",
    "HMCResult",
    "LogMarginal",
    "SamplerWarning",
    "TVBound",
    "defend",
    "defend_groups",
    "log_marginal",
    "sample",
    "sample_groups",
    "sample_posterior",
    "sample_potential",
    "tune",
    "tv_bound",
]
