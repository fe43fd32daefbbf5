"""Certified margins stand below what an attack leaves, and where they do not it is said loudly."""

import numpy as np

from vaefast.audit.ordering import compared, violations


def values(certified, empirical):
    return {
        "index": np.arange(len(empirical)) + 10,
        "margin_certified": np.array(certified),
        "margin_empirical": np.array(empirical),
    }


def test_the_ratio_is_of_the_inputs_that_broke():
    found = compared(values([0.1, 0.2, 0.3, 9.0], [0.2, 0.8, np.inf, np.nan]))
    counts = {"inputs": 3, "broken": 2, "certified": 3}
    assert found == {**counts, "median": 0.8, "violated": [], "ratio": 0.1875 * 2}
    assert violations(values([0.1], [0.1])) == []


def test_a_certificate_above_the_attack_is_named_with_its_input():
    (note,) = violations(values([0.1, 0.9, 0.3], [0.2, 0.8, 0.5]))
    assert note.startswith("A CERTIFICATE IS CONTRADICTED on 1 of 3 inputs (11)")


def test_an_input_that_is_broken_at_0_contradicts_what_is_certified_and_has_no_ratio():
    found = compared(values([0.1, 0.0], [0.0, 0.0]))
    assert found["violated"] == [10]
    assert found["ratio"] is None


def test_nothing_is_said_where_nothing_was_searched():
    assert compared({"index": np.arange(2)}) is None
    assert compared(values([0.1, 0.1], [np.nan, np.nan])) is None
    without = values([0.1], [0.4])
    del without["margin_certified"]
    assert compared(without) == {"inputs": 1, "broken": 1, "median": 0.4}
    assert violations(without) == []


def test_inputs_without_a_certificate_have_no_ratio_and_contradict_nothing():
    found = compared(values([0.1, np.nan, np.nan], [0.2, 0.8, np.inf]))
    assert found["certified"] == 1
    assert found["ratio"] == 0.5
    assert found["violated"] == []
