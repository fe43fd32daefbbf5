"""Training VAEs: objectives, the loop, and checkpoints from which a killed run goes on."""

from vaefast.elbo import ELBO, evaluate_elbo
from vaefast.training.fit import fit
from vaefast.training.history import History
from vaefast.training.objectives import BetaELBO, GroupELBO, Objective
from vaefast.training.step import Step
from vaefast.training.total_correlation import TCVAE, Decomposition, decompose_kl

__all__ = [
    "ELBO",
    "TCVAE",
    "BetaELBO",
    "Decomposition",
    "GroupELBO",
    "History",
    "Objective",
    "Step",
    "decompose_kl",
    "evaluate_elbo",
    "fit",
]
