"""``--eps 8`` for 8/255 ran without a word, and a warning of Python's own named a line of our code.
A command says each warning once, in one line of its own.
"""

import warnings

SHORT = ["--threads", 1, "--steps", 1, "--restarts", 1, "--out", "o.npz"]


def test_a_radius_that_covers_the_box_is_said_once(run, model):
    """Also where the inputs, 130 of them, are worked through in several blocks."""
    words = ["attack", "--data", "digits", "--model", model, "--inputs", 130, *SHORT]
    code, _, stderr = run(*words, "--eps", 8)
    assert code == 0
    assert stderr.startswith("vaefast: warning: ")
    assert "eps = 8 covers the whole box from 0 to 1" in stderr
    assert "8/255" in stderr
    assert stderr.count("\n") == 1


def test_fractions_say_nothing(run, model):
    words = ["attack", "--data", "digits", "--model", model, "--inputs", 2, *SHORT]
    code, _, stderr = run(*words, "--eps", "8/255")
    assert (code, stderr) == (0, "")


def test_the_callers_own_way_of_showing_warnings_stays(run):
    before = warnings.showwarning
    run("--version")
    assert warnings.showwarning is before
