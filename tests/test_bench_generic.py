"""The table of modules beside plain PyTorch."""

from vaefast.bench.generic_table import generic_table


def rows(case, **medians):
    return [{"case": case, "provider": p, "median_us": str(us)} for p, us in medians.items()]


def test_a_line_takes_the_fastest_loop_of_each_layout():
    times = {
        "vaefast": 210_000.0,
        "eager": 300_000.0,
        "eager, a loop": 250_000.0,
        "eager, channels last": 200_000.0,
        "torch.compile": 90_000.0,
    }
    *_, line = generic_table([rows("latent B=64 steps=20 convolutional float32 cpu", **times)])
    assert line == "| `latent` | 64 | steps=20 | 210 |  | 250 | 200 | 90 | **1.05** |"


def test_a_miss_is_not_bold():
    times = {"vaefast": 111_000.0, "eager, a loop": 100_000.0}
    *_, line = generic_table([rows("spectral_norm B=1 calls=8 float32 cpu", **times)])
    assert line == "| `spectral_norm` | 1 | calls=8 | 111 |  | 100 |  |  | 1.11 |"
