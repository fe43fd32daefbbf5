"""Settings refuse what makes no sense, before any work."""

import pytest

from vaefast.audit.settings import AuditSettings


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"inputs": 0}, "inputs must be at least 1"),
        ({"eps": ()}, "eps must be positive"),
        ({"eps": (0.1, 0.1)}, "differ in three digits"),
        ({"eps": (-0.1,)}, "eps must be positive"),
        ({"alpha": 0.7}, "alpha must lie"),
        ({"r": -1.0}, "r must be positive"),
        ({"divergence": "clf"}, "divergence must be one of"),
        ({"warmup": -1}, "warmup must be at least 0"),
    ],
)
def test_bad_settings_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        AuditSettings(**options)
