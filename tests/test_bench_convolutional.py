"""The peers of convolutional networks compute what ours does, and are charged what it costs."""

from dataclasses import replace

import pytest
import torch

from vaefast import ops
from vaefast.bench import Place, readme
from vaefast.bench.convolutional import cases
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops import _pixel_chains as chains
from vaefast.bench.ops import _pixel_decoding as decoding
from vaefast.bench.ops import _pixel_encoders as encoders
from vaefast.bench.ops import _pixels as pixels
from vaefast.bench.ops import _stacks as stacks
from vaefast.bench.runner import check
from vaefast.types import Network

CPU = Place("cpu")


def test_the_published_decoder_costs_26_megaflop_a_gradient():
    """As torch's own counter has it."""
    assert round(2 * nets.flop(pixels.PUBLISHED.make(), 1) / 1e6, 1) == 26.1


def test_no_product_with_padding_is_counted():
    """A window of three over two pixels joins two of its taps at either place."""
    net = Network([torch.ones(5, 3, 3, 3)], [None], ["conv in=3x2x2 padding=1x1 identity"])
    assert nets.flop(net, 1) == 2 * 16 * 15
    away = Network(
        [torch.ones(3, 5, 4, 4)], [None], ["conv_transpose in=3x1x1 stride=2x2 padding=1x1 relu"]
    )
    assert nets.flop(away, 2) == 2 * 2 * 4 * 15


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("decoder", [pixels.PUBLISHED, pixels.DCGAN])
def test_a_stack_is_the_network_and_its_gradient(decoder, last):
    given = pixels.Given.of(CPU, decoder, 2)
    z, x, net = given.posterior
    net = net._replace(
        weights=[w.double() for w in net.weights], biases=[b.double() for b in net.biases]
    )
    stack, z, x = stacks.stack(net, channels_last=last), z.double(), x.double()
    torch.testing.assert_close(nets.forward(z, stack), ops.net_forward(z, net, backend="reference"))
    truth = ops.net_potential(z, x, net, likelihood="bernoulli", backend="reference")[1]
    for gradient in (nets.by_autograd, nets.by_hand):
        torch.testing.assert_close(gradient(z, x, stack)[1], truth)


def test_an_encoder_pulls_back_by_hand_what_autograd_does():
    """Its images have a last pixel that strides of two do not reach evenly."""
    net = stacks.stack(pixels.encoder(CPU))
    x = CPU.pixels(2, 784)
    y, before = stacks.tape(x, net)
    given = torch.randn(y.shape)
    (truth,) = torch.autograd.functional.vjp(lambda x: nets.forward(x, net), x, given.flatten(1))[
        1:
    ]
    torch.testing.assert_close(stacks.back(given, net, before), truth)


def small(monkeypatch):
    for where, name, value in (
        (encoders, "B", 4), (encoders, "THEIRS", 2), (encoders, "ROWS", 3), (decoding, "B", 3),
        (decoding, "S", 50), (decoding, "THEIRS", 2),
    ):  # fmt: skip
        monkeypatch.setattr(where, name, value)
    yield chains.trajectory(CPU, pixels.PUBLISHED, 1)
    yield chains.trajectory(CPU, pixels.DCGAN, 1)
    yield chains.chain(CPU, pixels.PUBLISHED, 1)
    yield encoders.grams(CPU)
    yield encoders.attack(CPU)
    yield decoding.decoding(CPU)


def test_peers_agree(monkeypatch):
    """All but the compiled ones, which take seconds each; `vaefast bench` checks those."""
    for benchmark in small(monkeypatch):
        assert set(benchmark.checks) | set(benchmark.at_least_of) <= set(benchmark.providers)
        peers = {n: f for n, f in benchmark.providers.items() if not n.startswith("torch.compile")}
        check(replace(benchmark, providers=peers))


def test_the_rate_of_products_stands_beside_any_flop():
    for flop in (10**6, 10**9):
        found, scales = pixels.rate_of_products(flop)
        ((name, run),) = found.items()
        assert run.args[1] * 2 * 1024 * 512 * 512 * scales[name] == pytest.approx(flop)


def test_every_kind_of_work_has_a_case():
    titles = [title for title, _ in cases(CPU)]
    assert len(titles) == len(set(titles)) == 15


def test_the_table_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(readme, "CONVOLUTIONAL", tmp_path / "none.csv")
    assert readme.convolutional([]) == "Not yet measured.\n"
