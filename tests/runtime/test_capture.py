"""Capturing and replaying, with a capturer that runs on the CPU in place of CUDA's."""

import gc
import logging
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import vaefast as vf
from vaefast import attacks, hmc
from vaefast.models import ConvVAE
from vaefast.runtime import capture
from vaefast.runtime.capture import EAGER_RUNS, MOST, WORTH, CannotCapture, Graphs

FIELDS = ("z", "energy", "accept_rate", "step_size")


class Capturer:
    """Replays by running again, into the tensors that the capture returned."""

    def __init__(self):
        self.captures, self.pools, self.runs = 0, 1, weakref.WeakSet()

    def rehearse(self, run):
        return run()

    def capture(self, run):
        self.captures += 1
        outputs = run()
        self.runs.add(run)  # alive as long as the capture

        def replay():
            for held, new in zip(outputs, run()):
                held.copy_(new)

        return replay, outputs

    def new_pool(self):
        self.pools += 1


class Waiting(Capturer):
    def rehearse(self, run):
        raise CannotCapture("it waits for the GPU at model.py:7")


class Failing(Capturer):
    def capture(self, run):
        self.captures += 1
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


class Stale(Capturer):
    """Its replays write nothing."""

    def capture(self, run):
        return lambda: None, tuple(torch.full_like(t, 7.0) for t in run())


@dataclass(frozen=True)
class Affine:
    layer: nn.Module
    scale: float = 1.0

    def __call__(self, x, shift=None):
        y = self.scale * self.layer(x)
        return y if shift is None else y + shift, y.double().sum(1)


@pytest.fixture
def layer():
    return nn.Linear(3, 2).requires_grad_(False)


def batch(seed, rows=4):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))


def captured(function, layer, capturer=None, rows=4):
    """Graphs that hold one capture of the function."""
    found = Graphs(capturer or Capturer(), [layer])
    for seed in range(EAGER_RUNS + 1):
        found.run(function, batch(seed, rows))
    return found


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_replay_gives_what_an_ordinary_run_gives(layer):
    capturer, function = Capturer(), Affine(layer)
    found = Graphs(capturer, [layer])
    results = [found.run(function, batch(seed)) for seed in range(8)]
    for seed, result in enumerate(results):  # also: no replay writes to an earlier result
        assert_same(result, function(batch(seed)))
    assert capturer.captures == found.captured == 1
    assert found.replayed == 8 - EAGER_RUNS - 1


def test_a_shape_that_comes_rarely_is_not_captured(layer):
    capturer = Capturer()
    found = Graphs(capturer, [layer])
    for rows in range(1, 50):
        for _ in range(EAGER_RUNS):
            found.run(Affine(layer), batch(0, rows))
    assert capturer.captures == 0


def test_inputs_are_not_held_by_reference(layer):
    found, x = captured(Affine(layer), layer), batch(9)
    before = found.run(Affine(layer), x)
    x.zero_()
    assert_same(found.run(Affine(layer), batch(9)), before)


class Copies(TorchDispatchMode):
    """Counts copies into place."""

    def __init__(self):
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found += func.overloadpacket.__name__ == "copy_"
        return func(*args, **(kwargs or {}))


def copies(run):
    with Copies() as counted:
        run()
    return counted.found - 2  # the capturer's own, of the two outputs


def test_an_input_is_copied_when_it_is_another_or_was_written_to(layer):
    function, found, x = Affine(layer), Graphs(Capturer(), [layer]), batch(1)
    shift = torch.ones(2)

    def run():
        assert_same(found.run(function, x, shift), function(x, shift))

    for _ in range(EAGER_RUNS + 1):
        run()
    assert copies(run) == 0
    shift.add_(1.0)
    assert copies(run) == 1
    assert copies(run) == 0
    x = x.clone()  # equal, but who knows
    assert copies(run) == 1
    x[1:].zero_()  # through a view
    assert copies(run) == 1
    x.data = batch(2)
    assert copies(run) == 1
    assert copies(run) == 0


def test_a_tensor_in_the_place_of_a_dead_one_is_copied(layer):
    """Addresses and counts of writes come again, from step to step."""
    function, found = Affine(layer), captured(Affine(layer), layer)
    memory = torch.empty(4, 3)
    for seed in range(6):
        memory.data.copy_(batch(seed))  # uncounted
        x = memory.detach()
        assert x.data_ptr() == memory.data_ptr()
        assert x._version == memory._version == 0
        assert_same(found.run(function, x), function(x))


def test_tensors_of_inference_mode_are_always_copied(layer):
    function, found = Affine(layer), captured(Affine(layer), layer)
    with torch.inference_mode():
        x = batch(3)
        for seed in range(3):
            x.copy_(batch(seed))
            assert_same(found.run(function, x), function(x))
    assert found.replayed == 3


def test_writes_to_weights_are_seen_by_a_replay(layer):
    found, function = captured(Affine(layer), layer), Affine(layer)
    layer.weight.data.mul_(2.0)
    layer.bias.data.numpy()[:] = 5.0
    assert_same(found.run(function, batch(1)), function(batch(1)))
    assert (found.captured, found.replayed) == (1, 1)


@pytest.mark.parametrize("how", ["data", "parameter", "buffer"])
def test_weights_at_another_address_get_another_capture(layer, how):
    layer.register_buffer("offset", torch.zeros(2))
    found, function = captured(Affine(layer), layer), Affine(layer)
    if how == "data":
        layer.weight.data = layer.weight.data.clone() + 1.0
    elif how == "parameter":
        layer.weight = nn.Parameter(layer.weight.data.clone() + 1.0, requires_grad=False)
    else:
        layer.offset = torch.ones(2)
    for seed in range(EAGER_RUNS + 2):
        assert_same(found.run(function, batch(seed)), function(batch(seed)))
    assert (found.captured, found.replayed) == (2, 1)


def test_what_a_capture_is_keyed_by(layer):
    found, x = captured(Affine(layer), layer), batch(0)
    found.run(Affine(layer), x)  # an equal function
    assert found.replayed == 1
    others = [
        (Affine(layer, 2.0), x),
        (Affine(layer), x[:2]),
        (Affine(layer), batch(0, 8)[::2]),
        (Affine(layer), x, torch.ones(2)),
        (Affine(layer), x, None),
    ]
    for arguments in others:
        found.run(*arguments)
    assert found.replayed == 1
    wide = nn.Linear(3, 2).double()
    found.run(Affine(wide), x.double())
    assert found.replayed == 1


def test_optional_inputs_and_nan(layer):
    found, function = Graphs(Capturer(), [layer]), Affine(layer)
    for seed in range(EAGER_RUNS + 3):
        x = batch(seed)
        x[1] = torch.nan
        found.run(function, x, None)
        one, other = found.run(function, x, torch.ones(2)), function(x, torch.ones(2))
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert found.captured == 2


@pytest.mark.parametrize(
    ("capturer", "reason"),
    [
        (Waiting(), "it waits for the GPU at model.py:7"),
        (Failing(), "RuntimeError: operation not permitted when stream is capturing"),
        (Stale(), "a replay differs from the ordinary run"),
    ],
)
def test_without_a_capture_it_runs_eagerly_and_says_why_once(layer, capturer, reason, caplog):
    found, function = Graphs(capturer, [layer]), Affine(layer)
    with caplog.at_level(logging.INFO, "vaefast"):
        for seed in range(8):
            assert_same(found.run(function, batch(seed)), function(batch(seed)))
    (message,) = caplog.messages
    assert message.startswith(f"Affine runs without a CUDA graph: {reason}")
    assert "\n" not in message
    assert found.captured == found.replayed == 0
    assert capturer.captures <= 1


def test_the_functions_own_errors_are_the_callers(layer):
    found = captured(Affine(layer), layer)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        found.run(Affine(layer), torch.ones(4, 5))


def test_memory_is_bounded_over_many_shapes(layer):
    capturer, function = Capturer(), Affine(layer)
    found = Graphs(capturer, [layer])
    for rows in range(1, 101):
        for seed in range(EAGER_RUNS + 1 + WORTH):
            x = batch(seed, rows)
            assert_same(found.run(function, x), function(x))
        assert len(capturer.runs) <= MOST
    assert capturer.captures == 100
    assert capturer.pools == 1 + 99 // MOST  # memory returns with its pool
    found.close()
    gc.collect()
    assert len(capturer.runs) == 0


def test_captures_that_do_not_pay_come_to_an_end(layer, caplog):
    """A module that allocates its weights anew again and again."""
    capturer, function = Capturer(), Affine(layer)
    found, kept = Graphs(capturer, [layer]), []
    with caplog.at_level(logging.INFO, "vaefast"):
        for run in range(200):
            if run % (EAGER_RUNS + 1) == 0:
                kept.append(layer.weight.data)
                layer.weight.data = layer.weight.data.clone()
            assert_same(found.run(function, batch(run)), function(batch(run)))
    assert capturer.captures == MOST
    assert "change too often" in caplog.text


def test_tensors_that_are_read_by_the_way_are_kept_alive(layer):
    """A cache that a later run with another shape replaces."""

    class Cached:
        def __init__(self):
            self.cache = None

        def __call__(self, x):
            if self.cache is None or len(self.cache) != len(x):
                self.cache = torch.arange(float(len(x)))[:, None]
            return (x + self.cache,)

    function = Cached()
    found = captured(function, layer)
    storage = weakref.ref(function.cache)
    found.run(function, batch(0, rows=2))
    gc.collect()
    assert function.cache is not storage()
    assert storage() is not None
    found.close()
    gc.collect()
    assert storage() is None


def test_off_the_gpu_everything_runs_as_it_is():
    with capture.capturing(torch.ones(2), nn.Linear(2, 2)) as found:
        assert found is capture.OFF
        assert found.copies == 1
    assert Graphs(Capturer()).copies == 3  # eager, rehearsed, captured


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
    return ConvVAE((1, 8, 8), channels=3, latent=3, seed=3).eval()


def images(rows):
    return torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mass", [None, "posterior"])
def test_a_captured_chain_is_the_chain(vae, on_the_cpu, mass):
    """Three blocks, one of them partial, share one capture; steps and masses are inputs."""
    options = {"chains": 16, "steps": 12, "warmup": 6, "leapfrog": 3, "mass": mass}
    vf.set_memory(1 << 40)
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
    assert operations_per_transition(vae, monkeypatch, False, **options) > 100


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
