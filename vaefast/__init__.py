"""vaefast: fast kernels for the adversarial robustness of variational autoencoders."""

import torch  # noqa: F401 - first, so that vaefast._C shares its OpenMP runtime

from vaefast import attacks, backends, certify, data, geometry, hmc, metrics, models, ops, training
from vaefast.backends import supports, use_backend
from vaefast.info import info
from vaefast.memory import set_memory
from vaefast.models import VAE, as_vae, explain
from vaefast.ops import pgd_step

__version__ = "0.1.0"
__all__ = [
    "VAE",
    "as_vae",
    "attacks",
    "certify",
    "data",
    "explain",
    "geometry",
    "hmc",
    "info",
    "metrics",
    "models",
    "ops",
    "pgd_step",
    "set_memory",
    "supports",
    "training",
    "use_backend",
]

backends.read_environment()
