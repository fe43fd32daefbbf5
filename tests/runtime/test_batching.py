"""A row has one set of bits, however the batch is cut: in blocks, or in the C++ ops.

Modules outside of blocks agree to round-off instead.
"""

import contextvars
import threading

import pytest
import torch
from unlowered import unlowered

import vaefast as vf
from vaefast import attacks, certify, geometry, hmc
from vaefast.elbo import evaluate_elbo
from vaefast.models import MLPVAE
from vaefast.models.prepare import prepare
from vaefast.runtime import batching

ROWS = 70
CUTS = ((0, 1), (1, 10), (10, 67), (67, 70))
SHORT = {"steps": 3, "warmup": 2, "leapfrog": 2, "seed": 5}
FIELDS = ("z", "energy", "step_size", "x_adv", "objective", "hits", "p_lower", "margin")


MODELS = {
    "blocks": unlowered((1, 8, 8), channels=3, latent=3, seed=3),
    "bits": MLPVAE((1, 8, 8), hidden=(70, 33), latent=3, seed=3).eval(),
}
NEEDS_CPP = pytest.mark.skipif(
    not vf.supports("net_chain", "cpp"), reason="the C++ extension is not loaded"
)


@pytest.fixture
def vae():
    return MODELS["blocks"]


@pytest.fixture(params=["blocks", pytest.param("bits", marks=NEEDS_CPP)])
def kind(request):
    """Networks have the promise without asking for it."""
    if request.param == "bits":
        yield request.param
        return
    with vf.same_bits():
        yield request.param


@pytest.fixture(scope="module")
def x():
    return torch.rand(ROWS, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def encoded_and_decoded(vae, x, index):
    def run(part):
        mean, logvar = part.maps.encode(part.x)
        return mean, logvar, part.maps.g(mean)

    with torch.no_grad():
        return prepare(vae, x, index).rows(run, 1)


CALLS = {
    "encode and decode": encoded_and_decoded,
    "hmc": lambda vae, x, index: hmc.sample(vae, x, index=index, chains=2, **SHORT),
    "latent": lambda vae, x, index: attacks.latent(
        vae, x, eps=0.1, steps=3, restarts=2, index=index
    ),
    "max_damage": lambda vae, x, index: attacks.max_damage(
        vae, x, eps=0.5, steps=2, noise_samples=2, fresh_samples=3, index=index
    ),
    "geometric": lambda vae, x, index: attacks.geometric(vae, x, eps=0.1, index=index),
    "probability": lambda vae, x, index: certify.robust_probability(
        vae, x, 1.0, samples=20, index=index
    ),
    "margin": lambda vae, x, index: certify.margin(
        vae, x, 4.0, samples=20, index=index, method="whitened"
    ),
    "norm": lambda vae, x, index: (geometry.frobenius_norm(vae, x, index=index),),
    "elbo": lambda vae, x, index: tuple(evaluate_elbo(vae, x, index=index)),
}


def tensors(result):
    if isinstance(result, tuple):
        return list(result)
    return [getattr(result, name) for name in FIELDS if hasattr(result, name)]


@pytest.mark.parametrize("call", CALLS)
def test_any_cut_and_order_gives_the_same_bits(kind, x, call, threads):
    vae, run, index = MODELS[kind], CALLS[call], torch.arange(ROWS) + 30
    whole = run(vae, x, index)
    parts = [tensors(run(vae, x[a:b], index[a:b])) for a, b in CUTS]
    for expected, pieces in zip(tensors(whole), zip(*parts)):
        assert torch.equal(torch.cat(pieces), expected)
    order = torch.arange(ROWS).flip(0)
    for expected, turned in zip(tensors(whole), tensors(run(vae, x[order], index[order]))):
        assert torch.equal(turned, expected[order])
    if hasattr(whole, "reproducible"):
        assert whole.reproducible == kind


@pytest.mark.parametrize("call", CALLS)
def test_the_number_of_threads_changes_no_bit(kind, x, call):
    vae, run, index = MODELS[kind], CALLS[call], torch.arange(ROWS)
    before = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(tensors(run(vae, x, index)))
        assert torch.get_num_threads() == count
    torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results))


def test_every_model_call_has_one_shape(vae, x):
    sizes = set()
    handle = vae.decoder.register_forward_hook(lambda m, i, out: sizes.add(len(out)))
    with vf.same_bits():
        hmc.sample(vae, x, chains=4, **SHORT)
    handle.remove()
    assert sizes == {1, 2, 3, 64}  # a row's cost; recognition; is it a function of its row


@pytest.mark.parametrize("size", [1, 4, 64])
def test_places_follow_the_index(size):
    vf.set_block(size)
    index = torch.tensor([3, 130, 2, 64, 3, 3, 63])
    seen = []
    for block in batching.row_blocks(index, 1, generic=True):
        assert block.size == size == len(block.gather)
        assert torch.equal(block.gather[block.positions], block.rows)
        assert torch.equal(block.positions, index[block.rows] % size)
        assert len(set((index[block.rows] // size).tolist())) == 1
        assert set(block.gather.tolist()) == set(block.rows.tolist())  # the copies
        seen += block.rows.tolist()
    assert sorted(seen) == list(range(7))


def test_a_small_budget_makes_smaller_blocks():
    vf.set_memory(1000)
    with vf.same_bits():
        sizes = {b.size for b in batching.row_blocks(torch.arange(100), 90, generic=True)}
        assert sizes == {8}
        sizes = {b.size for b in batching.row_blocks(torch.arange(100), 1, generic=True, width=5)}
        assert sizes == {8}


@pytest.mark.parametrize("call", CALLS)
def test_unasked_a_cut_changes_round_off_alone(vae, x, call):
    """What is counted (hits) may differ where a distance lies on the radius; here none does."""
    run, index = CALLS[call], torch.arange(ROWS) + 30
    whole = run(vae, x, index)
    parts = [tensors(run(vae, x[a:b], index[a:b])) for a, b in CUTS]
    for expected, pieces in zip(tensors(whole), zip(*parts)):
        torch.testing.assert_close(torch.cat(pieces), expected, rtol=1e-3, atol=1e-3)
    if hasattr(whole, "reproducible"):
        assert whole.reproducible == "round-off"


@pytest.mark.parametrize("call", CALLS)
def test_unasked_the_same_call_gives_the_same_bits_again(vae, x, call):
    once, again = (tensors(CALLS[call](vae, x, torch.arange(ROWS))) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(once, again))


def test_unasked_the_rows_come_in_one_batch_on_all_threads(vae, x):
    seen, before = set(), torch.get_num_threads()
    torch.set_num_threads(2)
    handle = vae.decoder.register_forward_hook(
        lambda m, i, out: seen.add((len(out), torch.get_num_threads()))
    )
    try:
        hmc.sample(vae, x[:7], chains=3, **SHORT)
    finally:
        handle.remove()
        torch.set_num_threads(before)
    assert (21, 2) in seen
    assert {size for size, _ in seen} <= {1, 2, 3, 21}  # the others look at a row or two


def test_blocks_are_asked_for_in_a_place_or_in_the_process():
    def sizes():
        rows = torch.arange(5)
        return [block.size for block in batching.row_blocks(rows, 1, generic=True)]

    assert sizes() == [5]
    with vf.same_bits():
        assert sizes() == [64]
        with vf.same_bits(2):
            assert sizes() == [2, 2, 2]
        assert sizes() == [64]
        inside: list[list[int]] = []
        thread = threading.Thread(target=lambda: inside.append(sizes()))
        thread.start()
        thread.join()
        assert inside == [[5]]
        assert contextvars.copy_context().run(sizes) == [64]
        vf.set_block(4)
        assert sizes() == [64]
    assert sizes() == [4, 4]
    vf.set_block(None)
    assert sizes() == [5]
    assert [b.size for b in batching.row_blocks(torch.arange(5), 1, generic=False)] == [5]


def test_an_error_inside_ends_the_blocks():
    with pytest.raises(RuntimeError, match="inside"), vf.same_bits():
        raise RuntimeError("inside")
    assert "as they come" in batching.described()


def test_a_lowered_model_says_what_its_ops_give(x):
    vae = MLPVAE((1, 8, 8), hidden=(12,), latent=3).eval()
    found = certify.robust_probability(vae, x, 1.0, samples=5).reproducible
    fused = ("net_forward", "decode_distance")
    assert found == ("bits" if all(vf.supports(op, "cpp") for op in fused) else "round-off")


@pytest.mark.parametrize("rows", [0, 3, 8192, 2.0, True])
def test_a_block_is_a_power_of_two(rows):
    with pytest.raises(ValueError, match="power of two up to 4096 or None"):
        vf.set_block(rows)
    with pytest.raises(ValueError, match="power of two up to 4096"), vf.same_bits(rows):
        pass
