"""Barrett, Camuto, Willetts, Rainforth 2022: certifiably robust VAEs."""

from vaefast.reproduce.barrett2022.run import Reproduction, open_store, run
from vaefast.reproduce.barrett2022.settings import Settings

__all__ = ["Reproduction", "Settings", "open_store", "run"]
