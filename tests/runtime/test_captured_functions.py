"""Public functions that capture their steps: chains and attacks stay what they are."""

import logging
from contextlib import contextmanager, nullcontext

import pytest
import torch
from capturers import Capturer, Failing
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from unlowered import unlowered

import vaefast as vf
from vaefast import attacks, hmc
from vaefast.runtime import capture
from vaefast.runtime.capture import EAGER_RUNS, WORTH, Graphs

FIELDS = ("z", "energy", "accept_rate", "step_size")


class Waits(TorchDispatchMode):
    """Refuses what would wait for a GPU, or send it a number: no capture can hold that."""

    REFUSED = ("_local_scalar_dense", "nonzero", "lift_fresh", "scalar_tensor", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.REFUSED, func
        if name == "where":  # a Python number among its arguments is a tensor on the CPU by now
            assert all(t.ndim for t in args), func
        return func(*args, **(kwargs or {}))


class Strict(Capturer):
    def capture(self, run):
        with Waits():
            return super().capture(run)


@pytest.fixture
def on_the_cpu(monkeypatch):
    """Public functions capture on the CPU; the captures of the last call."""
    made = []

    @contextmanager
    def capturing(like, *modules):
        made.append(Graphs(Strict(), modules))
        yield made[-1]
        made[-1].close()

    def use():
        monkeypatch.setattr(capture, "capturing", capturing)
        return made

    return use


@pytest.fixture
def vae():
    return unlowered((1, 8, 8), channels=3, latent=3, seed=3)


def images(rows):
    return torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mass", [None, "posterior"])
def test_a_captured_chain_is_the_chain(vae, on_the_cpu, mass):
    """Three blocks, one of them partial, share one capture; steps and masses are inputs."""
    options = {"chains": 16, "steps": 12, "warmup": 6, "leapfrog": 3, "mass": mass}
    vf.set_memory(1 << 40)
    vf.set_block(64)
    expected = hmc.sample(vae, images(10), **options)
    made = on_the_cpu()
    calls = []
    vae.decoder.register_forward_pre_hook(lambda m, z: calls.append(len(z[0])))
    found = hmc.sample(vae, images(10), **options)
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert made[-1].captured == 1
    assert made[-1].replayed == 3 * 18 - EAGER_RUNS - 1
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())


class Counting(TorchDispatchMode):
    """Counts the operations outside of replays, views apart: what a GPU is sent one by one."""

    def __init__(self):
        super().__init__()
        self.sent, self.copies, self.replaying = 0, 0, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.sent += not (self.replaying or func.is_view)
        self.copies += not self.replaying and func.overloadpacket.__name__ == "copy_"
        return func(*args, **(kwargs or {}))

    def capture(self, run):
        replay, outputs = Capturer().capture(run)

        def silent():
            self.replaying = True
            replay()
            self.replaying = False

        return silent, outputs


def operations_per_transition(vae, monkeypatch, captured, **options):
    """The difference that 40 transitions make, once all is captured."""
    sent = []
    for more in (10, 50):
        counting = Counting()
        capturer = Capturer()
        capturer.capture = counting.capture
        held = Graphs(capturer if captured else None, [vae])
        monkeypatch.setattr(capture, "capturing", lambda *given, g=held: nullcontext(g))
        lengths = {name: more if length is None else length for name, length in options.items()}
        with counting:
            hmc.sample(vae, images(4), chains=16, leapfrog=2, **lengths)
        sent.append(counting.sent)
    return (sent[1] - sent[0]) / 40


@pytest.mark.parametrize(
    "options",
    [
        {"warmup": 5, "steps": None, "keep": "all"},
        {"warmup": 5, "steps": None, "keep": "all", "mass": "posterior"},
        {"warmup": None, "steps": 5},
    ],
)
def test_little_of_a_transition_stays_outside_of_its_capture(vae, monkeypatch, options):
    """Random numbers and the decisions are inside; copies to and fro and counts are not."""
    assert operations_per_transition(vae, monkeypatch, True, **options) <= 30
    assert operations_per_transition(vae, monkeypatch, False, **options) > 60


class Flipping(Capturer):
    """Its replays decide otherwise where there is a decision."""

    def capture(self, run):
        replay, outputs = super().capture(run)

        def other():
            replay()
            for t in outputs:
                if t.dtype == torch.bool:
                    t.logical_not_()

        return other, outputs


def test_where_decisions_flip_the_trajectory_alone_is_captured(vae, monkeypatch, caplog):
    options = {"steps": 8, "warmup": 4, "leapfrog": 2, "mass": "posterior"}
    expected = hmc.sample(vae, images(2), **options)
    held = Graphs(Flipping(), [vae])
    monkeypatch.setattr(capture, "capturing", lambda *given: nullcontext(held))
    with caplog.at_level(logging.INFO, "vaefast"):
        found = hmc.sample(vae, images(2), **options)
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(expected, name))
    (message,) = caplog.messages
    assert message.startswith("CapturableTransition runs without a CUDA graph: a replay differs")
    assert (held.captured, held.replayed) == (1, 12 - 2 * (EAGER_RUNS + 1))


def test_a_decoder_that_cannot_be_captured_gives_the_same_chain(vae, monkeypatch):
    options = {"steps": 8, "warmup": 4, "leapfrog": 2}
    expected = hmc.sample(vae, images(2), **options)

    @contextmanager
    def capturing(like, *modules):
        yield Graphs(Failing(), modules)

    monkeypatch.setattr(capture, "capturing", capturing)
    found = hmc.sample(vae, images(2), **options)
    assert torch.equal(found.z, expected.z)


ATTACKS = {
    "latent": lambda vae, x: attacks.latent(vae, x, eps=0.1, steps=8, restarts=2),
    "constant": lambda vae, x: attacks.latent(vae, x, eps=0.1, alpha=0.02, steps=8, norm="l2"),
    "kuzina2022": lambda vae, x: attacks.latent(vae, x, eps=0.1, preset="kuzina2022", steps=8),
    "clf": lambda vae, x: attacks.latent(
        vae, x, eps=0.1, divergence="clf", classifier=CLASSIFIER, steps=8
    ),
    "max_damage": lambda vae, x: attacks.max_damage(
        vae, x, eps=0.5, steps=8, noise_samples=2, fresh_samples=3
    ),
}
CLASSIFIER = nn.Linear(3, 4)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_captured_attack_is_the_attack(vae, on_the_cpu, name):
    x = images(70)  # two blocks or more
    expected = ATTACKS[name](vae, x)
    made = on_the_cpu()
    found = ATTACKS[name](vae, x)
    for field in ("x_adv", "objective", "history"):
        assert torch.equal(getattr(found, field), getattr(expected, field))
    assert made[-1].captured == 1
    assert made[-1].replayed > WORTH


def test_a_step_of_an_attack_copies_what_differs_from_the_last(vae, monkeypatch):
    """The point and the step length into place, the value into the history; no constant."""
    copies = []
    for steps in (10, 20):
        counting = Counting()
        capturer = Capturer()
        capturer.capture = counting.capture
        held = Graphs(capturer, [vae])
        monkeypatch.setattr(capture, "capturing", lambda *given, g=held: nullcontext(g))
        with counting:
            attacks.latent(vae, images(4), eps=0.1, steps=steps)
        copies.append(counting.copies)
    assert copies[1] - copies[0] == 3 * 10
