"""Kuzina, Welling, Tomczak 2022: does MCMC alleviate adversarial attacks on VAEs?"""

from vaefast.reproduce.kuzina2022.run import Reproduction, open_store, run
from vaefast.reproduce.kuzina2022.settings import Settings

__all__ = ["Reproduction", "Settings", "open_store", "run"]
