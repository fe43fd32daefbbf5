"""The Bernoulli likelihoods take logits: a network that ends in a sigmoid is refused."""

import re

import pytest
import torch

from vaefast.bench.cases import posterior
from vaefast.ops import net_chain, net_potential, net_trajectory

OF_LOGITS = ["bernoulli", "continuous_bernoulli", "clamped_bernoulli"]
MOVES = {"step": 0.1, "leapfrog": 2}


@pytest.fixture
def case():
    return posterior(activations="tanh,silu,sigmoid")


def state(case):
    """An energy and a gradient, whatever they are of."""
    return torch.zeros(len(case.z), dtype=torch.float64), case.z


CALLS = {
    "net_potential": lambda case, like: net_potential(*case, likelihood=like),
    "net_trajectory": lambda case, like: net_trajectory(
        case.z, case.z, case.z, case.x, case.net, likelihood=like, **MOVES
    ),
    "net_chain": lambda case, like: net_chain(
        case.z, *state(case), case.x, case.net, likelihood=like, steps=1, **MOVES
    ),
}


@pytest.mark.parametrize("likelihood", OF_LOGITS)
@pytest.mark.parametrize("op", CALLS)
def test_a_network_that_ends_in_a_sigmoid_is_refused(case, op, likelihood):
    message = (
        f"net ends in sigmoid, and likelihood {likelihood!r} takes logits; "
        'pass net.with_epilogue("identity")'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CALLS[op](case, likelihood)


@pytest.mark.parametrize("likelihood", OF_LOGITS)
@pytest.mark.parametrize("op", CALLS)
def test_its_logits_are_taken(case, op, likelihood):
    CALLS[op](case._replace(net=case.net.with_epilogue("identity")), likelihood)


@pytest.mark.parametrize("op", CALLS)
def test_the_mean_of_a_gaussian_may_be_a_sigmoid(case, op):
    CALLS[op](case, "gaussian")
