"""Ctrl-C ends a long call at once, a handler that returns does not, and the process goes on."""

import faulthandler
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch

from vaefast.bench.cases import network, posterior
from vaefast.ops import decode_distance, net_chain, net_potential

DELAY = 0.2  # s
LIMIT = 1.0  # s of this process's processors, whatever else they do; a call looks every 50 ms
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def many_samples(samples):
    net = network((16, 64, 784), "tanh,sigmoid", dtype=torch.float32)
    mean, centre = torch.zeros(1, 16), torch.full((1, 784), 0.5)
    return decode_distance(mean, mean + 1, centre, 9.0, net, samples=samples, backend="cpp")


def many_transitions(steps):
    z, x, net = posterior(2, 4, widths=(16, 64, 300), activations="tanh,identity")
    like = {"likelihood": "bernoulli", "backend": "cpp"}
    U, grad = net_potential(z, x, net, **like)
    options = {"step": 0.01, "leapfrog": 5, "steps": steps}
    return net_chain(z, U, grad, x, net, **like, **options).z


def one_large_chain(steps):
    """Weights that leave the caches: the threads share the columns of one row."""
    z, x, net = posterior(
        1, 1, widths=(16, 600, 900), activations="tanh,identity", dtype=torch.float32
    )
    like = {"likelihood": "bernoulli", "backend": "cpp"}
    U, grad = net_potential(z, x, net, **like)
    return net_chain(z, U, grad, x, net, **like, step=1e-3, leapfrog=5, steps=steps).z


CALLS = {
    "decode_distance": many_samples,
    "net_chain": many_transitions,
    "net_chain, one large chain": one_large_chain,
}
ENDLESS = 10**9  # samples or transitions: hours


@pytest.fixture(params=CALLS)
def call(request, require):
    require(request.param.partition(",")[0], "cpp")
    return CALLS[request.param]


@pytest.fixture(autouse=True)
def _no_deadlock():
    """Threads that wait for each other forever end the process, with a traceback."""
    # pytest may have put an object without a file in the place of sys.stderr
    faulthandler.dump_traceback_later(600, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@contextmanager
def handler(number, function):
    before = signal.signal(number, function)
    try:
        yield
    finally:
        signal.signal(number, before)


def latency_of_ctrl_c(work):
    """Seconds of processors from the signal to the exception."""
    sent = []

    def press():
        sent.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(DELAY, press)

    def pressed_on():  # the key may be pressed before the work has begun
        timer.start()
        work()

    with pytest.raises(KeyboardInterrupt):
        pressed_on()
    took = time.process_time() - sent[0]
    timer.join()
    return took


@pytest.mark.usefixtures("threads")
def test_ctrl_c_interrupts(call):
    expected = call(20)
    with handler(signal.SIGINT, signal.default_int_handler):
        for _ in range(4):  # any thread may be anywhere when it comes
            assert latency_of_ctrl_c(lambda: call(ENDLESS)) < LIMIT
    assert torch.equal(call(20), expected)


def test_only_a_handler_that_raises_ends_the_call(call):
    class Enough(Exception):
        pass

    ticks = []

    def tick(*_):
        ticks.append(time.process_time())
        if len(ticks) == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)  # or a fourth may come on the way out
            raise Enough

    def interrupted():
        signal.setitimer(signal.ITIMER_REAL, DELAY, DELAY / 2)
        call(ENDLESS)

    with handler(signal.SIGALRM, tick):
        try:
            with pytest.raises(Enough):
                interrupted()
            took = time.process_time() - ticks[-1]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(ticks) == 3
    assert took < LIMIT
