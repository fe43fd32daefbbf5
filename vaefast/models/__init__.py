"""Variational autoencoders: the protocol, wrapping, lowering, networks of our own, storage."""

from vaefast.models.activations import MaxMin
from vaefast.models.explanation import Explanation, explain
from vaefast.models.groups import Group, Hierarchical, as_hierarchical
from vaefast.models.hierarchical import HierarchicalVAE
from vaefast.models.joint import from_log_joint
from vaefast.models.lipschitz import (
    Constants,
    LipschitzConvVAE,
    LipschitzVAE,
    lipschitz_constants,
)
from vaefast.models.lowering import CannotLower
from vaefast.models.mixture import GaussianMixture
from vaefast.models.networks import MLPVAE, ConvVAE
from vaefast.models.storage import load, save
from vaefast.models.vae import VAE
from vaefast.models.wrapping import as_vae

__all__ = [
    "MLPVAE",
    "VAE",
    "CannotLower",
    "Constants",
    "ConvVAE",
    "Explanation",
    "GaussianMixture",
    "Group",
    "Hierarchical",
    "HierarchicalVAE",
    "LipschitzConvVAE",
    "LipschitzVAE",
    "MaxMin",
    "as_hierarchical",
    "as_vae",
    "explain",
    "from_log_joint",
    "lipschitz_constants",
    "load",
    "save",
]
