"""decode_distance: hits against direct computation, adding up however the samples are cut."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

import vaefast as vf
from vaefast import philox
from vaefast.bench.cases import images, network
from vaefast.ops import decode_distance, net_forward
from vaefast.philox import Use
from vaefast.types import Network

d, D = 3, 10


def case(B=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    mean = torch.randn(B, d, generator=generator, dtype=torch.float64)
    std = 0.2 + 0.5 * torch.rand(B, d, generator=generator, dtype=torch.float64)
    net = network((d, 8, D), "tanh,sigmoid", dtype=dtype)
    centre = net_forward(mean.to(dtype), net)
    r = torch.linspace(0.2, 0.8, B, dtype=torch.float64)
    return mean.to(dtype), std.to(dtype), centre, r.to(dtype), net


def distances(mean, std, centre, net, index, samples, seed=0):
    """‖g(z_s) − c‖₂ for every input and sample, [B, S]."""
    columns = []
    for s in samples:
        noise = philox.normal(mean.shape[1], seed=seed, index=index, step=s, use=Use.LATENT)
        columns.append((net_forward(mean + std * noise, net) - centre).norm(dim=1))
    return torch.stack(columns, dim=1)


def test_hits_by_direct_computation(backend):
    mean, std, centre, r, net = case()
    index = torch.tensor([3, 0, 1 << 34, 77])
    hits = decode_distance(
        mean, std, centre, r, net, seed=5, index=index, first_sample=8, samples=150, backend=backend
    )
    distance = distances(mean, std, centre, net, index, range(8, 158), seed=5)
    assert (distance - r[:, None]).abs().min() > 1e-9  # no sample so close that round-off decides
    assert hits.dtype == torch.int64
    assert torch.equal(hits, (distance <= r[:, None]).sum(1))
    assert (hits > 0).all()
    assert (hits < 150).all()


def identity():
    """g(z) = z on R^d."""
    return network((d, d), "identity")._replace(
        weights=[torch.eye(d, dtype=torch.float64)], biases=[None]
    )


def test_the_boundary_counts_as_a_hit(backend):
    mean = torch.zeros(3, d, dtype=torch.float64)
    centre = mean.clone()
    centre[:, 0] = 0.5  # exact in binary, as is the distance
    r = torch.tensor([0.5, math.nextafter(0.5, 0.0), 0.0], dtype=torch.float64)
    hits = decode_distance(mean, mean, centre, r, identity(), samples=9, backend=backend)
    assert hits.tolist() == [9, 0, 0]


def test_hits_add_up_over_any_split_of_the_samples(backend):
    arguments = case()
    whole = decode_distance(*arguments, samples=1000, backend=backend)
    parts = [(0, 1), (1, 500), (501, 499)]
    split = [
        decode_distance(*arguments, first_sample=first, samples=count, backend=backend)
        for first, count in parts
    ]
    assert torch.equal(sum(split), whole)


def exact_distances(mean, std, centre, net, sample, *, dtype=torch.float64, **options):
    """The backend's own distances [B] of one sample: the smallest r that it counts as a hit."""
    bits = torch.int64 if dtype == torch.float64 else torch.int32
    low = torch.full((len(mean),), -1, dtype=torch.int64)  # no hit at the number with these bits
    high = torch.full((len(mean),), 1000.0, dtype=dtype).view(bits).to(torch.int64)
    options |= {"first_sample": sample, "samples": 1}
    while (high - low).max() > 1:
        middle = low + (high - low) // 2
        r = middle.to(bits).view(dtype)
        hit = decode_distance(mean, std, centre, r, net, **options) == 1
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    return high.to(bits).view(dtype)


def wide_case(B, dtype):
    generator = torch.Generator().manual_seed(6)
    mean = torch.randn(B, 5, generator=generator, dtype=torch.float64)
    centre = torch.rand(B, 301, generator=generator, dtype=torch.float64)
    std = torch.full_like(mean, 0.7)
    net = network((5, 40, 301), "tanh,sigmoid", dtype=dtype)
    return mean.to(dtype), std.to(dtype), centre.to(dtype), net


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_cut_and_thread_count(dtype):
    """The radius that only just hits sample 33, found for one row at a time, tells the bits."""
    if not (support := vf.supports("decode_distance", "cpp")):
        pytest.skip(support.reason)
    B, S, options = 7, 90, {"seed": 3, "backend": "cpp"}
    mean, std, centre, net = wide_case(B, dtype)
    rows = [(mean[b : b + 1], std[b : b + 1], centre[b : b + 1]) for b in range(B)]
    r = torch.cat([
        exact_distances(*rows[b], net, 33, dtype=dtype, index=torch.tensor([b]), **options)
        for b in range(B)
    ])  # fmt: skip
    below = torch.nextafter(r, torch.zeros_like(r))
    expected, before = None, torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for cuts in ((0, 90), (0, 90), (0, 33, 34, 90), (0, 17, 60, 90)):
                hits, fewer = (
                    sum(
                        decode_distance(
                            mean, std, centre, radius, net, first_sample=s, samples=e - s, **options
                        )
                        for s, e in pairwise(cuts)
                    )
                    for radius in (r, below)
                )
                assert torch.equal(hits - fewer, torch.ones(B, dtype=torch.int64))
                expected = hits if expected is None else expected
                assert torch.equal(hits, expected)
            own = [
                decode_distance(
                    *rows[b], r[b : b + 1], net, index=torch.tensor([b]), samples=S, **options
                )
                for b in range(B)
            ]
            assert torch.equal(torch.cat(own), expected)
    finally:
        torch.set_num_threads(before)


def test_float32_distances_err_at_most_twice_as_much_as_eager(backend):
    mean, std, centre, net = wide_case(16, torch.float32)
    index = torch.arange(16)
    found = exact_distances(mean, std, centre, net, 4, dtype=torch.float32, backend=backend)
    wide = Network([w.double() for w in net.weights], [b.double() for b in net.biases], net.layers)
    truth = distances(mean.double(), std.double(), centre.double(), wide, index, [4])[:, 0]
    noise = philox.normal(5, seed=0, index=index, step=4, use=Use.LATENT).float()
    image = net_forward(mean + std * noise, net, backend="reference")
    eager = (image - centre).square().sum(1, dtype=torch.float64).sqrt()
    error = (found - truth).abs().max()
    assert error <= 2 * (eager - truth).abs().max() + 4 * 2**-24 * truth.max()


MEMORY = """
import resource, sys, torch
from vaefast.bench.cases import network
from vaefast.ops import decode_distance
net = network((32, 64, 784), "tanh,sigmoid", dtype=torch.float32)
mean, centre = torch.zeros(1, 32), torch.full((1, 784), 0.5)
def run(samples):
    decode_distance(mean, mean + 1, centre, 9.0, net, samples=samples, backend=sys.argv[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(-run(100) + run(100_000))
"""


def test_memory_does_not_depend_on_the_samples():
    """S = 100 000 on D = 784; stored, the reconstructions would take 300 MiB."""
    if not (support := vf.supports("decode_distance", "cpp")):
        pytest.skip(support.reason)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, "cpp"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert int(done.stdout) < 64 * 1024  # KiB


@pytest.mark.parametrize("budget", [1, 20_000, 200_000])
def test_any_memory_budget_and_cut_of_the_batch_count_the_same(backend, budget):
    mean, std, centre, r, net = case(9)
    whole = decode_distance(mean, std, centre, r, net, samples=60, backend=backend)
    vf.set_memory(budget)
    assert torch.equal(decode_distance(mean, std, centre, r, net, samples=60), whole)
    rows = torch.tensor([7, 2, 5])
    picked = [t[rows] for t in (mean, std, centre, r)]
    part = decode_distance(*picked, net, index=rows, samples=60, backend=backend)
    assert torch.equal(part, whole[rows])


def test_hits_grow_with_the_radius_and_reach_both_ends(backend):
    mean, std, centre, _, net = case()
    counts = [
        decode_distance(mean, std, centre, r, net, samples=200, backend=backend)
        for r in (0.0, 0.2, 0.4, 0.8, 10.0)
    ]
    assert (counts[0] == 0).all()
    assert (counts[-1] == 200).all()
    assert all((b >= a).all() for a, b in pairwise(counts))


def test_linear_decoder_gives_the_chi_square_law(backend):
    """g(z) = z, std 1, centre at the mean: ‖η‖² is chi-square with d degrees of freedom."""
    mean = torch.zeros(1, d, dtype=torch.float64)
    r, S = 1.7, 20_000
    hits = decode_distance(mean, mean + 1, mean, r, identity(), samples=S, backend=backend)
    p = math.erf(r / math.sqrt(2)) - math.sqrt(2 / math.pi) * r * math.exp(-(r**2) / 2)
    assert abs(hits.item() / S - p) <= 4 * math.sqrt(p * (1 - p) / S)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
def test_bad_rows_have_no_hits_and_the_others_are_untouched(backend, place, bad):
    arguments = case()
    clean = decode_distance(*arguments, samples=50, backend=backend)
    arguments[place][1 if place == 3 else (1, 2)] = bad
    hits = decode_distance(*arguments, samples=50, backend=backend)
    assert hits[1] == 0
    assert torch.equal(hits[[0, 2, 3]], clean[[0, 2, 3]])


def test_float32_counts_like_float64(backend):
    hits = decode_distance(*case(dtype=torch.float32), samples=500, backend=backend)
    assert (hits - decode_distance(*case(), samples=500)).abs().max() <= 2


@pytest.mark.parametrize(("B", "samples"), [(0, 5), (2, 0)])
def test_nothing_to_do(backend, B, samples):
    hits = decode_distance(*case(B), samples=samples, backend=backend)
    assert hits.tolist() == [0] * B


def test_images_far_from_every_reconstruction_are_never_hit(backend):
    mean, std, _, _, net = case()
    far = 5 + images(4, D, dtype=torch.float64).x
    assert (decode_distance(mean, std, far, 1.0, net, samples=50, backend=backend) == 0).all()


def test_inputs_that_require_grad():
    mean, *rest = case()
    with pytest.raises(RuntimeError, match="decode_distance is not differentiable; use backend="):
        decode_distance(mean.requires_grad_(), *rest, samples=5)
    assert decode_distance(mean, *rest, samples=5, backend="reference").shape == (4,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"std": torch.ones(4, 2).double()}, ValueError, r"std must be \[4, 3\] beside mean, got"),
        (
            {"centre": torch.ones(4, 9).double()},
            ValueError,
            r"centre must be \[4, 10\] beside mean",
        ),
        ({"centre": torch.ones(4, 10)}, TypeError, "centre must be float64 like mean, got float32"),
        ({"r": "1"}, TypeError, "r must be a number, got str"),
        ({"r": torch.ones(3)}, ValueError, r"r must be a float or \[B\] = \[4\], got \[3\]"),
        ({"samples": 2.0}, TypeError, "samples must be a whole number, got float"),
        ({"first_sample": -1}, ValueError, "first_sample must be at least 0, got -1"),
    ],
)
def test_errors_say_what_came_and_what_to_do(change, error, message):
    arguments = dict(zip(("mean", "std", "centre", "r", "net"), case()))
    with pytest.raises(error, match=message):
        decode_distance(**{**arguments, "samples": 5, **change})
