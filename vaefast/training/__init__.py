"""Training VAEs: objectives, the loop, and checkpoints from which a killed run goes on."""

from vaefast.elbo import ELBO, evaluate_elbo
from vaefast.training.adversarial import Adversarial
from vaefast.training.avae import AVAE
from vaefast.training.fisher import Fisher
from vaefast.training.fit import fit
from vaefast.training.history import History
from vaefast.training.mixup import Mixup
from vaefast.training.objectives import BetaELBO, GroupELBO, Objective
from vaefast.training.seatbelt import Seatbelt
from vaefast.training.smooth import Smooth
from vaefast.training.step import Step
from vaefast.training.total_correlation import TCVAE, Decomposition, decompose_kl

__all__ = [
    "AVAE",
    "ELBO",
    "TCVAE",
    "Adversarial",
    "BetaELBO",
    "Decomposition",
    "Fisher",
    "GroupELBO",
    "History",
    "Mixup",
    "Objective",
    "Seatbelt",
    "Smooth",
    "Step",
    "decompose_kl",
    "evaluate_elbo",
    "fit",
]
