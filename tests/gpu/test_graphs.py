"""Capturing on a GPU: replays, weights, failures, memory, and the functions that are captured."""

import logging

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast import attacks, hmc
from vaefast.models import ConvVAE
from vaefast.runtime import capture
from vaefast.runtime.capture import EAGER_RUNS, MOST, Graphs
from vaefast.runtime.cuda_graphs import CudaCapturer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device was found")
DEVICE = torch.device("cuda", 0)


class Gradient:
    """A layer's value and its gradient in x, as the potentials and the attacks take them."""

    def __init__(self, module):
        self.module = module

    def __call__(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.module(x).double().square().flatten(1).sum(1)
            (grad,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), grad


class Synchronous(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y * (2.0 if y.sum().item() > 1e9 else 1.0)


class Rude(nn.Linear):
    """Fails in a capture only, where no rehearsal sees it."""

    def forward(self, x):
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        return super().forward(x)


def batch(seed, rows=4):
    return torch.randn(rows, 32, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def captured(module):
    function, found = Gradient(module), Graphs(CudaCapturer(DEVICE), [module])
    for seed in range(EAGER_RUNS + 1):
        found.run(function, batch(seed))
    return function, found


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8)).to(DEVICE)


def check(found, function, seeds=range(10, 15)):
    results = [found.run(function, batch(seed)) for seed in seeds]
    for seed, result in zip(seeds, results):
        for one, other in zip(result, function(batch(seed)), strict=True):
            assert torch.equal(one, other)


def test_a_replay_gives_what_an_ordinary_run_gives(net):
    function, found = captured(net)
    check(found, function)
    assert (found.captured, found.replayed) == (1, 5)
    assert all(p.grad is None for p in net.parameters())


def test_weights(net):
    function, found = captured(net)
    net[0].weight.data.mul_(1.5)
    check(found, function)
    assert found.captured == 1
    net[0].weight = nn.Parameter(net[0].weight.detach() + 0.25)
    check(found, function)
    assert found.captured == 2


@pytest.mark.parametrize("layer", [Synchronous, Rude])
def test_a_failure_is_logged_and_leaves_cuda_usable(layer, caplog, net):
    module = layer(32, 8).to(DEVICE)
    with caplog.at_level(logging.INFO, "vaefast"):
        function, found = captured(module)
    assert len(caplog.messages) == 1
    assert "runs without a CUDA graph" in caplog.text
    check(found, function)
    assert found.captured == 0
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.isfinite(torch.randn(1000, device=DEVICE)).all()
    torch.empty(1000, pin_memory=True).to(DEVICE, non_blocking=True)
    torch.cuda.synchronize()
    other, further = captured(net)  # the next one can be captured
    check(further, other)
    assert further.captured == 1


def test_memory_is_bounded_over_100_shapes(net):
    function, found = Gradient(net), Graphs(CudaCapturer(DEVICE), [net])
    sizes = []
    for rows in range(1000, 101000, 1000):
        for seed in range(EAGER_RUNS + 6):
            found.run(function, batch(seed, rows))
        sizes.append(torch.cuda.memory_reserved())
    found.close()
    one_run = 100_000 * (32 + 2 * 64 + 8) * 4 * 4
    assert max(sizes) < found.copies * MOST * one_run + (1 << 28)
    assert torch.cuda.memory_reserved() < 1 << 28


def test_memory_is_bounded_over_50_calls(vae):
    """Each call captures anew, and nobody empties the cache but the calls themselves."""
    sizes = []
    for seed in range(50):
        hmc.sample(vae, images(8), chains=32, steps=6, warmup=2, leapfrog=3, seed=seed)
        sizes.append(torch.cuda.memory_reserved())
    assert max(sizes[5:]) <= max(sizes[:5]) + (1 << 24)


@pytest.fixture
def vae():
    return ConvVAE((1, 28, 28), channels=8, latent=16, seed=3).eval().to(DEVICE)


@pytest.fixture
def off(monkeypatch):
    """Turn capturing off."""
    from contextlib import nullcontext

    def turn_off():
        monkeypatch.setattr(capture, "capturing", lambda *tensors: nullcontext(capture.OFF))

    return turn_off


def images(rows):
    x = torch.rand(rows, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return x.to(DEVICE)


@pytest.mark.parametrize("options", [{}, {"precision": "tf32"}, {"precision": "bf16"}])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_captured_chain_is_the_chain(vae, off, caplog, options, memory_format):
    options = {**options, "memory_format": memory_format, "mass": "posterior"}
    options |= {"chains": 8, "steps": 30, "warmup": 20, "leapfrog": 5, "step_size": 0.02}
    with caplog.at_level(logging.INFO, "vaefast"):
        found = hmc.sample(vae, images(10), **options)
    assert "without a CUDA graph" not in caplog.text
    off()
    expected = hmc.sample(vae, images(10), **options)
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=0)
    torch.testing.assert_close(found.energy, expected.energy, rtol=0, atol=0)


def test_rounded_gradients_sample_the_same_posterior(vae):
    options = {"chains": 64, "steps": 200, "warmup": 200, "leapfrog": 8, "mass": "posterior"}
    exact = hmc.sample(vae, images(2), **options)
    rounded = hmc.sample(vae, images(2), precision="bf16", **options, seed=1)
    for run in (exact, rounded):
        assert not run.failed.any()
    means = [run.z.mean((1, 2)) for run in (exact, rounded)]
    spread = exact.z.mean(2).std(1) / 8 + rounded.z.mean(2).std(1) / 8
    assert ((means[0] - means[1]).abs() < 6 * spread).all()


ATTACKS = {
    "latent": lambda vae, x: attacks.latent(vae, x, eps=0.1, steps=10, restarts=2),
    "l2": lambda vae, x: attacks.latent(vae, x, eps=1.0, norm="l2", steps=10),
    "kuzina2022": lambda vae, x: attacks.latent(vae, x, eps=0.1, preset="kuzina2022", steps=10),
    "max_damage": lambda vae, x: attacks.max_damage(
        vae, x, eps=0.5, steps=10, noise_samples=2, fresh_samples=3
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_captured_attack_is_the_attack(vae, off, caplog, name):
    vf.set_block(16)
    with caplog.at_level(logging.INFO, "vaefast"):
        found = ATTACKS[name](vae, images(40))
    assert "without a CUDA graph" not in caplog.text
    off()
    expected = ATTACKS[name](vae, images(40))
    torch.testing.assert_close(found.x_adv, expected.x_adv, rtol=0, atol=0)
    torch.testing.assert_close(found.history, expected.history, rtol=0, atol=0)
