"""VAEs whose maps have Lipschitz constants, and constants that are computed from weights."""

from vaefast.models.lipschitz.constants import Constants, lipschitz_constants
from vaefast.models.lipschitz.convolutions import LipschitzConvVAE
from vaefast.models.lipschitz.vae import LipschitzVAE

__all__ = ["Constants", "LipschitzConvVAE", "LipschitzVAE", "lipschitz_constants"]
