"""Aggregates leave failed rows out and are None where there is nothing to say."""

import numpy as np
import pytest
from scipy import stats

from vaefast.report.aggregates import aggregate, share, spearman, summary, variance_explained


def test_summary_is_mean_error_and_quartiles():
    values = np.array([1.0, 2.0, 3.0, 10.0])
    found = summary(values)
    assert found["mean"] == 4.0
    assert found["median"] == 2.5
    assert found["std_error"] == pytest.approx(stats.sem(values))
    assert summary(values[:0]) is None
    assert summary(values[:1])["std_error"] == 0.0


def test_share_has_a_clopper_pearson_interval():
    found = share(np.array([True] * 8 + [False] * 2))
    low, high = stats.beta.ppf(0.025, 8, 3), stats.beta.ppf(0.975, 9, 2)
    assert found["mean"] == 0.8
    assert found["interval"] == pytest.approx([low, high])
    assert share(np.zeros(0, bool)) is None


def test_spearman_is_none_without_ranks():
    assert spearman(np.arange(4.0), -np.arange(4.0))[0] == pytest.approx(-1.0)
    assert spearman(np.ones(4), np.arange(4.0)) == (None, None)
    assert spearman(np.arange(2.0), np.arange(2.0)) == (None, None)
    assert spearman(np.array([np.inf, 0.5, 0.1]), np.arange(3.0))[0] == pytest.approx(-1.0)


def test_variance_explained_is_one_for_a_perfect_model_and_zero_for_the_mean():
    x = np.random.default_rng(0).uniform(size=(6, 5))
    assert variance_explained(x, np.zeros(6)) == 1.0
    error = np.linalg.norm(x - x.mean(axis=0), axis=1)
    assert variance_explained(x, error) == pytest.approx(0.0)
    assert variance_explained(x[:1], np.ones(1)) is None


def test_failed_rows_are_in_no_aggregate(made_up_audit):
    audit = made_up_audit()
    first = audit.outcomes[0]
    audit.values["margin_whitened"][3] = np.nan
    audit.values["failed"][3] = True
    first.values["msssim"][5] = np.nan
    first.values["failed"][5] = True
    numbers = aggregate(audit)
    rest = np.delete(audit.values["margin_whitened"], 3)
    assert numbers["clean"]["margin_whitened"]["mean"] == pytest.approx(rest.mean())
    rest = np.delete(first.values["msssim"], [3, 5])
    assert numbers["attacks"][first.plan.name]["msssim"]["mean"] == pytest.approx(rest.mean())
    assert numbers["failed"] == 1
    assert numbers["attacks"][first.plan.name]["failed"] == 1


def test_accuracy_counts_the_predicted_class_not_the_label(made_up_audit):
    audit = made_up_audit()
    outcome = audit.outcomes[0]
    audit.values["predicted"][:] = 1
    audit.values["label"][:] = 2
    outcome.values["predicted"][:] = 1
    outcome.values["predicted_defended"][:] = 2
    found = aggregate(audit)["attacks"][outcome.plan.name]
    assert found["accuracy"]["mean"] == 1.0
    assert found["accuracy_defended"]["mean"] == 0.0
    assert found["label_accuracy"]["mean"] == 0.0
    assert found["label_accuracy_defended"]["mean"] == 1.0
