"""pgd_step with a parameter for each element, and in both orders of projecting and clipping."""

import math

import pytest
import torch

import vaefast as vf
from vaefast.bench.cases import images

NORMS, ORDERS = ("linf", "l2"), ("project_clip", "clip_project")
DTYPES = (torch.float32, torch.float64)
SHAPE = (4, 3, 5, 7)
EPS = {"linf": 0.03, "l2": 0.7}


@pytest.fixture(autouse=True)
def _needs_backend(backend, require):
    require("pgd_step", backend)


def pictures(dtype=torch.float64, shape=SHAPE):
    return [t.view(shape) for t in images(shape[0], math.prod(shape[1:]), dtype=dtype)]


def like_rows(value, ndim):
    return (
        value.view(-1, *[1] * (ndim - 1)) if torch.is_tensor(value) and value.ndim == 1 else value
    )


def project(y, x, eps, norm):
    if norm == "linf":
        return torch.maximum(torch.minimum(y, x + eps), x - eps)
    delta = (y - x).flatten(1)
    distance = torch.linalg.vector_norm(delta, dim=1).view(-1, *[1] * (y.ndim - 1))
    return x + (y - x) * (eps / distance.clamp(min=1e-300)).clamp(max=1.0)


def expected(x_adv, grad, x, norm, order, alpha=0.01, eps=None, low=0.0, high=1.0):
    """The formulas in torch's own words, in float64, by broadcasting."""
    x_adv, grad, x = (t.double() for t in (x_adv, grad, x))
    eps = EPS[norm] if eps is None else eps
    parameters = (like_rows(value, x.ndim) for value in (alpha, eps, low, high))
    alpha, eps, low, high = (torch.as_tensor(value, dtype=torch.float64) for value in parameters)
    length = torch.linalg.vector_norm(grad.flatten(1), dim=1).view(-1, *[1] * (x.ndim - 1))
    y = x_adv + alpha * (grad.sign() if norm == "linf" else grad / length)
    if order == "clip_project":
        return project(y.clamp(low, high), x, eps, norm)
    return project(y, x, eps, norm).clamp(low, high)


def step(data, norm, order, backend, **kw):
    options = {"alpha": 0.01, "eps": EPS[norm], **kw}
    return vf.pgd_step(*data, norm=norm, order=order, backend=backend, **options)


def close(result, truth):
    bound = 4 * torch.finfo(result.dtype).eps
    assert (result.double() - truth).abs().max() <= bound


def between(low, high, *shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(len(shape))
    return (low + (high - low) * torch.rand(*shape, generator=generator, dtype=dtype)).to(dtype)


@pytest.mark.parametrize("D", [1, 17, 1030, 20011])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", NORMS)
def test_both_orders_at_any_width(backend, norm, order, dtype, D):
    data = images(3, D, dtype=dtype)
    box = {"low": 0.2, "high": 0.7}  # x lies outside of it in places: the orders differ
    result = step(data, norm, order, backend, **box)
    close(result, expected(*data, norm, order, **box))


def test_the_orders_differ(backend):
    data = pictures()
    for norm in NORMS:
        results = [step(data, norm, order, backend, low=0.2, high=0.7) for order in ORDERS]
        assert (results[0] - results[1]).abs().max() > 0.01


SHAPES = {
    "one per channel": (1, 3, 1, 1),
    "one per pixel": (1, 1, 5, 7),
    "one per element of a row": (1, 3, 5, 7),
    "one per element": SHAPE,
    "one per row and channel": (4, 3, 1, 1),
    "one per row": (4, 1, 1, 1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", NORMS)
def test_values_per_element(backend, norm, order, shape, dtype):
    data = pictures(dtype)
    given = {"low": between(-0.2, 0.4, *shape), "high": between(0.6, 1.1, *shape)}
    if norm == "linf" or math.prod(shape[1:]) == 1:
        given |= {"alpha": between(0, 0.05, *shape), "eps": between(0, 0.1, *shape)}
    given = {name: value.to(dtype) for name, value in given.items()}
    for names in (list(given), ["low"], ["high"]):
        some = {name: given[name] for name in names}
        result = step(data, norm, order, backend, **some)
        close(result, expected(*data, norm, order, **some))


@pytest.mark.parametrize("norm", NORMS)
def test_kinds_may_be_mixed(backend, norm):
    """A number, one per row, one per channel and one per element in one call."""
    data = pictures()
    given = {"alpha": 0.02, "eps": between(0.01, 1, 4), "low": between(0, 0.4, 1, 3, 1, 1)}
    given["high"] = between(0.6, 1, *SHAPE)
    for order in ORDERS:
        close(step(data, norm, order, backend, **given), expected(*data, norm, order, **given))


@pytest.mark.parametrize("D", [1030, 20011])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", NORMS)
def test_boxes_per_element_of_wide_rows(backend, norm, order, D):
    data = images(2, D, dtype=torch.float64)
    box = {"low": between(-0.2, 0.4, 1, D), "high": between(0.6, 1.1, 2, D)}
    close(step(data, norm, order, backend, **box), expected(*data, norm, order, **box))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_constant_tensor_means_what_the_number_means(backend, norm, order):
    data = pictures(torch.float32)
    truth = step(data, norm, order, backend, low=0.1, high=0.9)
    for shape in [(), (4,), (1, 3, 1, 1), SHAPE]:
        box = {"low": torch.full(shape, 0.1), "high": torch.full(shape, 0.9)}
        torch.testing.assert_close(
            step(data, norm, order, backend, **box), truth, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", NORMS)
def test_rows_keep_their_bits_in_any_cut(backend, norm, order):
    if backend == "reference":
        pytest.skip("the reference is reproducible to round-off")
    data, high = pictures(torch.float32), between(0.5, 1, *SHAPE).float()
    whole = step(data, norm, order, backend, high=high)
    parts = [step([t[i : i + 1] for t in data], norm, order, backend, high=high[i : i + 1])
             for i in range(4)]  # fmt: skip
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["alpha", "eps", "low", "high"])
def test_a_nan_of_one_element(backend, name, norm, order):
    """It makes that element NaN, in ℓ2 its row."""
    if norm == "l2" and name in ("alpha", "eps"):
        pytest.skip("one for each row")
    data = pictures()
    value = {"alpha": 0.01, "eps": 0.1, "low": 0.0, "high": 1.0}[name]
    value = torch.full(SHAPE, value, dtype=torch.float64)
    clean = step(data, norm, order, backend, **{name: value})
    value[1, 2, 3, 4] = math.nan
    result = step(data, norm, order, backend, **{name: value})
    touched = torch.zeros(SHAPE, dtype=torch.bool)
    touched[(1, 2, 3, 4) if norm == "linf" else 1] = True
    if name != "alpha" or data[1][1, 2, 3, 4] != 0:
        assert result[touched].isnan().all()
    assert torch.equal(result[~touched], clean[~touched])


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_a_bad_image_when_clipped_first(backend, norm, bad, place):
    data = pictures()
    clean = step(data, norm, "clip_project", backend)
    data[place][1, 2, 3, 4] = bad
    result = step(data, norm, "clip_project", backend)
    touched = torch.zeros(SHAPE, dtype=torch.bool)
    touched[(1, 2, 3, 4) if norm == "linf" else 1] = True
    assert result[touched].isnan().all()
    assert torch.equal(result[~touched], clean[~touched])


def test_images_in_channels_last(backend):
    data = pictures(torch.float32)
    high = between(0.5, 1, *SHAPE).float()
    last = [t.contiguous(memory_format=torch.channels_last) for t in data]
    for given in (high, high.contiguous(memory_format=torch.channels_last)):
        result = step(last, "linf", "project_clip", backend, high=given)
        torch.testing.assert_close(result, step(data, "linf", "project_clip", backend, high=high))


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (0, 3, 5, 7)])
def test_an_empty_batch(backend, shape):
    data = [torch.zeros(0, 3, 5, 7)] * 3
    result = step(data, "linf", "project_clip", backend, high=torch.ones(shape))
    assert result.shape == (0, 3, 5, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": torch.ones(3)}, r"eps must be a number, \[B\] = \[4\], .* got \[3\]; "
         r"write one per channel as \[1, 3, 1, 1\]"),
        ({"low": torch.zeros(3, 1, 1)}, r"low must be .* got \[3, 1, 1\]; write one per"),
        ({"high": torch.ones(1, 2, 1, 1)}, r"high must be .* got \[1, 2, 1, 1\]"),
        ({"high": torch.ones(5, 7)}, r"high must be .* got \[5, 7\]"),
        ({"alpha": torch.ones(1, 3, 1, 1), "norm": "l2"}, r'alpha must be a number or \[B\] for '
         r'norm="l2", got \[1, 3, 1, 1\]; only low and high may differ between elements'),
        ({"eps": torch.ones(SHAPE), "norm": "l2"}, r'eps must be a number or \[B\] for norm="l2"'),
    ],
)  # fmt: skip
def test_shapes_that_could_mean_something_else_are_refused(backend, change, message):
    options = {"alpha": 0.1, "eps": 0.1, "backend": backend, **change}
    with pytest.raises(ValueError, match=message):
        vf.pgd_step(*pictures(torch.float32), **options)


def test_a_square_batch_takes_a_vector_per_row(backend):
    """[B] stays per row where the rows are as long as the batch."""
    data, eps = images(5, 5, dtype=torch.float64), between(0, 0.1, 5)
    result = step(data, "linf", "project_clip", backend, eps=eps)
    close(result, expected(*data, "linf", "project_clip", eps=eps))
