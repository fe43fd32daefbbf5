"""A small model and a few images in an empty folder, and a plan of them."""

import numpy as np
import pytest
import torch

from vaefast import models
from vaefast.jobs import RunPlan

ROWS = 41


@pytest.fixture(scope="session")
def vae():
    """Small, of relu's, with the same σ everywhere."""
    return models.MLPVAE((1, 4, 4), (8, 8), 2, activation="relu", fixed_std=0.3).eval()


@pytest.fixture
def folder(tmp_path, vae):
    """m.safetensors and x.npy, whose row 7 is NaN."""
    models.save(vae, tmp_path / "m.safetensors")
    x = np.random.default_rng(0).random((ROWS, 1, 4, 4), dtype=np.float32)
    x[7, 0, 1, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    return tmp_path


@pytest.fixture
def plan_of(folder):
    """A plan on these files; by default of a hundred draws per input."""

    def plan(task="robust_probability", **given):
        radii = {"r": (0.8,)} if task in ("margin", "robust_probability") else {}
        options = {"samples": 100} if radii else {}
        own = radii | {"options": options, "shard_size": 8} | given
        return RunPlan(str(folder / "m.safetensors"), str(folder / "x.npy"), task, **own)

    return plan


@pytest.fixture(autouse=True)
def one_thread():
    """Several processes share the cores that tests have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
