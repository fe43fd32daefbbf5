"""What all reproductions' commands change and give back."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _threads():
    """``--threads`` sets torch's."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
