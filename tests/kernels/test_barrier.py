"""Programs that share a tile give the bits of one program that has it alone.

The interpreter runs one program after the other; here each is a process of its own, so that they
wait for each other as on a GPU.
"""

import os
import random
import signal
import time
import traceback

import pytest
import torch

from vaefast.bench.cases import posterior
from vaefast.ops import net_chain, net_potential, net_trajectory
from vaefast.runtime.backends import interpreted

pytestmark = pytest.mark.skipif(
    not interpreted() or not hasattr(os, "fork"), reason="needs TRITON_INTERPRET=1 and fork"
)
pytest.importorskip("triton", reason="triton is not installed")

from triton.runtime import interpreter  # noqa: E402 - needs triton

from vaefast.kernels.common import barrier, launch  # noqa: E402 - needs triton
from vaefast.kernels.common import posterior as kernels  # noqa: E402 - needs triton

LIMIT = 600  # s that a launch may take before its programs count as waiting for each other forever
WIDTHS = {
    "even": (5, 128, 256, 150),
    "odd": (3, 70, 200, 330),
    "one block": (4, 9, 20, 30),
    "one layer": (5, 150),
}


@pytest.fixture
def at_once(monkeypatch):
    """All programs of a launch run at the same time, on shared memory."""
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", _launch)


def _launch(executor, *arguments, **options):
    for tensor in filter(torch.is_tensor, arguments):
        tensor.untyped_storage().share_memory_()
    programs = [os.fork() or _run(i, executor, arguments, options) for i in range(executor.grid[0])]
    deadline = time.monotonic() + LIMIT
    try:
        while programs and time.monotonic() < deadline:
            process, status = os.waitpid(programs[0], os.WNOHANG)
            if process:
                assert status == 0, "a program failed; its traceback is above"
                programs.pop(0)
            time.sleep(0.01)
        assert not programs, "the programs wait for each other"
    finally:
        for process in programs:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


PLAIN_CALL = interpreter.GridExecutor.__call__


def _run(program, executor, arguments, options):
    """One program of a launch; ends the process."""
    status = 1
    try:
        programs, builder = executor.grid[0], interpreter.interpreter_builder
        set_dim, set_idx = builder.set_grid_dim, builder.set_grid_idx
        builder.set_grid_dim = lambda *_: set_dim(programs, 1, 1)
        builder.set_grid_idx = lambda *_: set_idx(program, 0, 0)
        builder.create_barrier = _stumble(random.Random(program))
        executor.grid, executor._restore_args_dev = (1,), lambda *_: None
        PLAIN_CALL(executor, *arguments, **options)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _stumble(dice):
    """Instead of a barrier, which one process needs not: now and then a program falls behind."""
    return lambda: time.sleep(0.02 * (dice.random() < 0.2))


@pytest.fixture(params=[2, 3])
def spread(request, monkeypatch):
    """Programs of a tile; one group of them takes all tiles of a launch in turn."""
    monkeypatch.setattr(launch, "processors", lambda _: 1)
    monkeypatch.setattr(launch, "PROGRAMS_PER_PROCESSOR", 1)

    def share():
        monkeypatch.setattr(kernels, "spread_of", lambda *_: request.param)

    return share


def results(widths, activation, precision):
    """Potential, trajectory and chain of 20 chains: two tiles, one of them not full."""
    names = ",".join([activation] * (len(widths) - 2) + ["identity"])
    z, x, net = posterior(5, 4, widths=widths, activations=names, dtype=torch.float32)
    like = {"likelihood": "bernoulli", "backend": "triton", "precision": precision, "tile": 16}
    U, grad = net_potential(z, x, net, **like)
    yield from (U, grad)
    p = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    yield from net_trajectory(z, p, grad, x, net, step=0.05, leapfrog=3, **like)
    options = {"step": 0.1, "leapfrog": 2, "jitter": 0.1, "seed": 7, "steps": 3, "thin": 1}
    yield from net_chain(z, U, grad, x, net, **like, **options)


@pytest.mark.parametrize("precision", ["ieee", "bf16"])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_shared_tiles_have_the_same_bits(widths, precision, spread, at_once):
    activation = "maxmin" if widths[1] % 2 == 0 else "tanh"
    alone = list(results(widths, activation, precision))
    spread()
    together = list(results(widths, activation, precision))
    assert len(alone) == len(together)
    for one, other in zip(alone, together):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("tiles", "spread"), [(1, 16), (4, 16), (8, 16), (9, 8), (16, 8), (33, 4), (66, 2), (67, 1)]
)
def test_as_many_programs_as_the_device_has_idle(tiles, spread, monkeypatch):
    from vaefast.kernels.common.network import describe

    monkeypatch.setattr(barrier, "processors", lambda _: 132)
    net = describe((32, 512, 512, 784), "tanh,tanh,identity")  # at most 13 blocks of 64
    blocks = launch.blocks_of("bf16", 16)
    assert barrier.spread_of(net, blocks, tiles, torch.device("cuda")) == spread
    assert barrier.spread_of(net, blocks, tiles, torch.device("cpu")) == 1
