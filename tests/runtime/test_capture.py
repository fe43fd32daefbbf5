"""Capturing and replaying, with a capturer that runs on the CPU in place of CUDA's."""

import gc
import logging
import weakref
from dataclasses import dataclass

import pytest
import torch
from capturers import Capturer, Failing, Waiting
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vaefast.runtime import capture
from vaefast.runtime.capture import EAGER_RUNS, MOST, WORTH, Graphs


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
