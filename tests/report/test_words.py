"""Numbers as the page writes them."""

import pytest

from vaefast.audit.progress import human
from vaefast.report.words import change, number, percent, reach


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (-0.5, "−0.500"),
        (1e-7, "1.00e−07"),
        (2.5e8, "2.50e+08"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (950.0, "950"), (4321.0, "4321"), (43210.0, "43.2 k"), (1.5e6, "1.5 M")],
)
def test_human(value, text):
    assert human(value) == text


def test_words_of_change():
    assert change(0.5, 0.505) == "leaves"
    assert change(0.5, 0.6) == "raises"
    assert change(0.5, 0.4) == "lowers"
    assert percent(0.256) == "26\u00a0%"


def test_reach_says_what_an_attack_may_do():
    assert reach({"norm": "linf", "radius": 0.1}) == "changes no pixel by more than 0.1"
    assert "0.8 in length" in reach({"norm": "l2", "radius": 0.8, "eps": 0.1})
