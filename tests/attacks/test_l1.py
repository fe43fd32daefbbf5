"""ℓ1 balls: the projection and the step against other ways to find them, and the attacks."""

import pytest
import torch

from vaefast import attacks
from vaefast.functional import l1


def case(rows=40, pixels=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(4, rows, pixels, generator=generator, dtype=torch.float64)
    x = (1.6 * draw[0] - 0.3).clamp(0, 1)  # many entries at the ends of the box
    y = x + 4.0 * (draw[1] - 0.5)
    eps = torch.linspace(0.0, 5.0, rows, dtype=torch.float64)
    low, high = torch.zeros(rows, dtype=torch.float64), torch.ones(rows, dtype=torch.float64)
    return y, x, eps, low, high


def bisected(y, x, eps, low, high):
    """The same by 200 halvings of λ."""
    delta = y - x
    room = torch.where(delta > 0, high[:, None] - x, x - low[:, None])
    below, above = torch.zeros_like(eps), delta.abs().amax(1)
    for _ in range(200):
        middle = (below + above) / 2
        kept = torch.minimum((delta.abs() - middle[:, None]).clamp(min=0), room)
        much = kept.sum(1) > eps
        below, above = torch.where(much, middle, below), torch.where(much, above, middle)
    fits = torch.minimum(delta.abs(), room).sum(1) <= eps
    above = torch.where(fits, torch.zeros_like(above), above)
    return x + delta.sign() * torch.minimum((delta.abs() - above[:, None]).clamp(min=0), room)


def test_the_projection_is_exact():
    y, x, eps, low, high = case()
    found = l1.projected(y, x, eps, low, high)
    torch.testing.assert_close(found, bisected(y, x, eps, low, high), rtol=0, atol=1e-13)
    assert ((found - x).abs().sum(1) <= eps + 1e-12).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_no_point_of_the_set_is_nearer():
    """⟨y − u, v − u⟩ ≤ 0 for every v of the set, which says that u is the projection."""
    y, x, eps, low, high = case()
    u = l1.projected(y, x, eps, low, high)
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        scale = torch.rand(len(x), 1, generator=generator, dtype=torch.float64)
        v = l1.projected(x + 3.0 * scale * noise, x, eps, low, high)
        assert (((y - u) * (v - u)).sum(1) <= 1e-12).all()


def test_special_cases_of_the_projection():
    y, x, eps, low, high = case()
    torch.testing.assert_close(l1.projected(x, x, eps, low, high), x, rtol=0, atol=0)
    everywhere = l1.projected(y, x, torch.full_like(eps, torch.inf), low, high)
    torch.testing.assert_close(everywhere, y.clamp(0, 1), rtol=0, atol=1e-15)
    nowhere = l1.projected(y, x, 0 * eps, low, high)
    torch.testing.assert_close(nowhere, x, rtol=0, atol=1e-15)
    free = l1.projected(y, x, eps, low - 99, high + 99)
    lengths = torch.minimum((y - x).abs().sum(1), eps)
    torch.testing.assert_close((free - x).abs().sum(1), lengths, rtol=0, atol=1e-12)
    y[3, 2] = torch.nan
    found = l1.projected(y, x, eps, low, high)
    assert found[3].isnan().any()
    assert found[[0, 1, 2, 4, 5]].isfinite().all()


def test_the_step_is_the_steepest_in_the_box():
    """Against linear programming, and against each entry alone."""
    optimize = pytest.importorskip("scipy.optimize")
    grad, point, _, low, high = case(rows=12, pixels=6, seed=3)
    grad = grad - 0.5
    grad[4, 2], alpha = 0.0, torch.linspace(0.05, 3.0, 12, dtype=torch.float64)
    step = l1.steepest(grad, point, alpha, low, high)
    assert (step.abs().sum(1) <= alpha + 1e-12).all()
    assert ((point + step >= -1e-15) & (point + step <= 1 + 1e-15)).all()
    for row in range(12):
        up, down = 1 - point[row], point[row]
        cost = torch.cat((-grad[row], grad[row])).numpy()  # d = p − n
        bounds = [(0, float(b)) for b in torch.cat((up, down))]
        best = optimize.linprog(cost, [[1.0] * 12], [float(alpha[row])], bounds=bounds)
        assert float((grad[row] * step[row]).sum()) == pytest.approx(-best.fun, abs=1e-9)
    assert l1.steepest(torch.full_like(grad, torch.nan), point, alpha, low, high).isnan().all()


def test_starts_are_uniform_in_the_ball():
    """The radius's D-th power is uniform, and so is the sign of every entry."""
    generator = torch.Generator().manual_seed(2)
    entries = torch.rand(20000, 5, generator=generator, dtype=torch.float64)
    rest = torch.rand(20000, 1, generator=generator, dtype=torch.float64)
    points = l1.uniform(entries, rest)
    volume = points.abs().sum(1).sort().values ** 5
    grid = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    assert (volume - grid).abs().max() < 1.63 / 20000**0.5  # Kolmogorov, 1 %
    assert points.sign().mean(0).abs().max() < 0.03
    share = points.abs() / points.abs().sum(1, keepdim=True)
    torch.testing.assert_close(share.mean(0), torch.full((5,), 0.2).double(), atol=0.005, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("attack", [attacks.latent, attacks.max_damage])
def test_attacks_stay_in_ball_and_box(attack, dtype, make_vae, make_images):
    vae = make_vae(torch.float64 if dtype == torch.float64 else torch.float32)
    x = make_images(8, dtype)
    eps = torch.linspace(0.05, 2.0, 8, dtype=torch.float64)
    result = attack(vae, x, eps=eps, norm="l1", steps=15, restarts=2)
    assert result.x_adv.dtype == dtype
    norms = (result.x_adv.double() - x.double()).flatten(1).abs().sum(1)
    torch.testing.assert_close(result.perturbation_norm, norms, rtol=0, atol=0)
    assert (norms <= eps * (1 + 1e-6)).all()
    assert ((result.x_adv >= 0) & (result.x_adv <= 1)).all()
    assert not result.failed.any()


def test_a_linear_model_is_solved(linear_vae, make_images):
    """max ‖A δ‖² over the ℓ1 ball lies at a corner, ± eps of one pixel."""
    vae, a = linear_vae(latents=2)
    x = 0.25 + 0.5 * make_images(6)
    result = attacks.latent(vae, x, eps=0.2, norm="l1", divergence="means", restarts=20, steps=60)
    best = 0.2**2 * a.square().sum(0).max()
    torch.testing.assert_close(result.objective, best.expand(6), rtol=1e-6, atol=0)


def test_through_the_defence(make_vae, make_images):
    vae, x = make_vae(), make_images(2)
    defence = {"steps": 3, "warmup": 3, "leapfrog": 2}
    result = attacks.max_damage(
        vae, x, eps=0.5, norm="l1", steps=3, through_defence=defence, gradient="spsa"
    )
    assert (result.perturbation_norm <= 0.5 + 1e-9).all()


def test_where_there_is_none(make_vae, make_images):
    with pytest.raises(ValueError, match="norm must be one of"):
        attacks.geometric(make_vae(), make_images(2), eps=0.1, norm="l1")
