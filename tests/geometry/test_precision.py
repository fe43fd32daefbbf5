"""Norms in tf32 and bf16: what reaches the ops, and that nothing rounded is called a bound."""

import inspect

import pytest
import torch

from vaefast import geometry, ops

OPS = ("net_forward", "net_jacobian_gram", "net_jvp", "net_vjp")
OF = ("encoder", "decoder", "reconstruction")
REDUCED = ("tf32", "bf16")


@pytest.fixture
def seen(monkeypatch):
    """{op: the precisions that it was called with}."""
    found = {}

    def spy(name, op):
        default = inspect.signature(op).parameters["precision"].default

        def call(*arguments, **options):
            found.setdefault(name, set()).add(options.get("precision", default))
            return op(*arguments, **options)

        return call

    for name in OPS:
        monkeypatch.setattr(ops, name, spy(name, getattr(ops, name)))
    return found


@pytest.fixture
def case(build):
    generator = torch.Generator().manual_seed(7)
    return build("mlp").float(), torch.rand(3, 1, 4, 4, generator=generator)


CALLS = {
    "frobenius": geometry.frobenius_norm,
    "hutchinson": lambda *a, **o: geometry.frobenius_norm(*a, method="hutchinson", **o),
    "hutch++": lambda *a, **o: geometry.frobenius_norm(*a, method="hutch++", **o),
    "spectral": lambda *a, **o: geometry.spectral_norm(*a, bound="estimate", **o),
}


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("precision", ["ieee", *REDUCED])
@pytest.mark.parametrize("norm", CALLS)
def test_reaches_the_products_and_leaves_values_exact(case, seen, norm, precision, of):
    CALLS[norm](*case, of=of, whiten=of == "encoder", precision=precision)
    assert seen.pop("net_forward", {"ieee"}) == {"ieee"}
    assert seen
    assert all(found == {precision} for found in seen.values())


@pytest.mark.parametrize("norm", CALLS)
def test_ieee_is_the_default(case, seen, norm):
    assert torch.equal(CALLS[norm](*case), CALLS[norm](*case, precision="ieee"))
    assert all(found == {"ieee"} for found in seen.values())


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("norm", CALLS)
def test_the_cpu_computes_at_full_precision(build, norm, precision, kind):
    side = 8 if kind == "conv" else 4
    vae, x = build(kind).float(), torch.rand(2, 1, side, side)
    assert torch.equal(CALLS[norm](vae, x, precision=precision), CALLS[norm](vae, x))


def test_an_estimate_is_the_upper_bound_without_its_allowance(vae, x):
    upper = geometry.spectral_norm(vae, x)
    estimate = geometry.spectral_norm(vae, x, bound="estimate")
    torch.testing.assert_close(estimate * (1 + 1e-12), upper, rtol=1e-14, atol=0)
    assert (estimate < upper).all()


@pytest.mark.parametrize("precision", REDUCED)
def test_no_bound_is_computed_in_reduced_precision(vae, x, precision):
    for bound in ("upper", "lower"):
        with pytest.raises(ValueError, match=f'{bound}" needs precision="ieee", got "{precision}"'):
            geometry.spectral_norm(vae, x, bound=bound, precision=precision)
    options = {"method": "hutchinson", "upper_confidence": 0.99}
    with pytest.raises(ValueError, match='upper_confidence needs precision="ieee"'):
        geometry.frobenius_norm(vae, x, **options, precision=precision)


@pytest.mark.parametrize("norm", CALLS.values())
def test_refuses_an_unknown_precision(case, norm):
    with pytest.raises(ValueError, match="precision must be one of 'ieee', 'tf32', 'bf16'"):
        norm(*case, precision="fp16")
