"""A reason per row."""

import torch

from vaefast.runtime.reasons import listed, reasons


def test_the_first_cause_that_holds_is_the_reason():
    first, second = torch.tensor([0, 1, 0]).bool(), torch.tensor([0, 1, 1]).bool()
    assert reasons(3, {"first": first, "second": second}) == ("", "first", "second")
    assert reasons(2, {}) == ("", "")


def test_rows_are_listed_in_a_few_words():
    assert listed([3]) == "row 3"
    assert listed([0, 3]) == "rows 0, 3"
    assert listed(range(9)) == "rows 0, 1, 2, 3, 4, ..."
