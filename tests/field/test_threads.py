"""Threads: more of them than processors, after a fork, and beside other threads of a program.

On two processors 8, 32 or 128 threads took 16 to 500 times as long as one, a forked child with two
threads never answered, and a thread that began during a call kept one thread for good. Kernels
take as many as there are processors for, a child works, and nobody else's number changes.
"""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.runtime import openmp, threads

NEEDS_CPP = pytest.mark.skipif(
    not vf.supports("net_forward", "cpp"), reason="the C++ extension is not loaded"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(autouse=True)
def _number():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("asked", [1, 2, 8, 32, 128])
def test_no_more_threads_than_processors(asked, monkeypatch):
    monkeypatch.setattr(threads, "_quota", lambda: 1 << 20)
    torch.set_num_threads(asked)
    assert threads.count() == min(asked, len(os.sched_getaffinity(0)))
    monkeypatch.setattr(threads, "_quota", lambda: 1)
    assert threads.count() == 1


GROUPS = {  # /proc/self/cgroup, files below /sys/fs/cgroup, and the processors that they leave
    "none": ("", {}, 1 << 20),
    "v2": ("0::/a/b\n", {"a/b/cpu.max": "250000 100000"}, 3),
    "v2, without a limit": ("0::/a\n", {"a/cpu.max": "max 100000"}, 1 << 20),
    "v2, of the parent": ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 1"}, 1),
    "v2, inside a container": ("0::/../x\n", {"cpu.max": "200000 100000"}, 2),
    "v1": (
        "5:cpu,cpuacct:/a\n4:memory:/m\n",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "400000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        4,
    ),
    "v1, by its link": (
        "5:cpuacct,cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
        2,
    ),
    "v1, without a limit": (
        "5:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        1 << 20,
    ),
    "damaged": ("0::/a\n", {"a/cpu.max": "?"}, 1 << 20),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_quota_of_a_control_group(name, tmp_path):
    listed, files, processors = GROUPS[name]
    (tmp_path / "cgroup").write_text(listed)
    for path, text in files.items():
        (tmp_path / "fs" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / path).write_text(text + "\n")
    assert threads.quota(tmp_path / "cgroup", tmp_path / "fs") == processors


def output_of(code, timeout=60):
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", CALL + code], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


CALL = """
import os, sys
import torch
from vaefast import ops
from vaefast.bench.cases import network
net, z = network((64, 300, 784), "tanh,identity"), torch.ones(8, 64).double()
def call(threads):
    torch.set_num_threads(threads)
    return ops.net_forward(z, net, backend="cpp").sum().item()
"""


@LINUX
@NEEDS_CPP
def test_a_call_starts_no_more_threads_than_processors():
    before, after = map(
        int,
        output_of(
            "torch.set_num_threads(128);"  # which starts a pool of torch's own
            "print(len(os.listdir('/proc/self/task'))); call(128);"
            "print(len(os.listdir('/proc/self/task')))"
        ),
    )
    assert after - before < len(os.sched_getaffinity(0))


FORK = """
def works():
    product = torch.ones(600, 600) @ torch.ones(600, 600)  # a parallel region of torch's
    return call(2), torch.ones(1 << 20).mul(2).sum().item(), product.sum().item()
expected = works()
{before}
child = os.fork()
if not child:
    os._exit(0 if works() == expected else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), works() == expected)
"""


@LINUX
@NEEDS_CPP
def test_a_forked_child_works():
    assert output_of(FORK.format(before="")) == ["0", "True"]


@LINUX
@NEEDS_CPP
def test_a_forked_child_works_on_one_thread_where_the_runtime_cannot_be_paused():
    before = "from vaefast.runtime import openmp; openmp._end_threads = lambda path: False"
    works = "product = torch.ones(600, 600) @ torch.ones(600, 600)  # a parallel region of torch's"
    code = FORK.format(before=before).replace(works, "product = torch.ones(())")
    assert output_of(code.replace("torch.ones(1 << 20)", "torch.ones(9)")) == ["0", "True"]


class Watching(nn.Module):
    """Starts a thread and keeps its number of threads, and this one's."""

    def __init__(self):
        super().__init__()
        self.linear, self.own, self.others = nn.Linear(4, 4), [], []

    def forward(self, x):
        other = threading.Thread(target=lambda: self.others.append(torch.get_num_threads()))
        other.start()
        other.join()
        self.own.append(torch.get_num_threads())
        return self.linear(x).cos()


def test_a_thread_that_starts_during_a_call_has_its_own_number():
    torch.set_num_threads(2)
    encoder = Watching()
    vae = vf.VAE(encoder_mean=encoder, encoder_logvar=torch.zeros(4), decoder=nn.Linear(4, 4))
    with vf.same_bits():
        vf.geometry.frobenius_norm(vae.eval(), torch.rand(3, 4))
    assert 1 in encoder.own  # blocks of rows are evaluated on one thread
    assert set(encoder.others) == {2}
    assert torch.get_num_threads() == 2


def test_the_number_comes_back_after_an_error():
    torch.set_num_threads(2)
    found = []

    @openmp.at_most(1)
    def fail():
        found.append(torch.get_num_threads())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert found == [1]
    assert torch.get_num_threads() == 2
