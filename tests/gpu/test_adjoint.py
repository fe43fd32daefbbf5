"""The way back through a chain on a GPU, where its trajectories run in captured graphs."""

import pytest
import torch

from vaefast.bench.cases import posterior
from vaefast.functional.hmc import Draws, State
from vaefast.hmc.adjoint import pull_back, recorded
from vaefast.hmc.target import NetworkTarget

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device was found")


@pytest.mark.parametrize("massive", [False, True])
def test_a_chain_is_pulled_back_as_on_the_cpu(massive):
    """Eight transitions: the first two run eagerly, the others are replays."""
    found = []
    for device in ("cpu", "cuda"):
        how = {"dtype": torch.float64, "device": device}
        z, x, net = posterior(4, 2, widths=(5, 16, 12), activations="tanh,identity", **how)
        mass = torch.linspace(0.5, 1.5, 20, **how).view(4, 5) if massive else None
        target = NetworkTarget(x, net, "bernoulli", (), mass, 4, "ieee", "reference")
        draws = Draws(torch.arange(4, device=device), seed=1, jitter=0.2)
        start, step = State(z, *target.potential(z)), torch.full((4,), 0.2, **how)
        run, path = recorded(target, start, draws, step, steps=8)
        found.append([t.cpu() for t in (run.z, *pull_back(path, z.sin() + 1))])
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-8)
