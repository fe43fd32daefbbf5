"""The command line run inside a process leaves that process's handling of signals as it was."""

import signal

from vaefast.cli import main


def test_main_gives_back_the_handler_of_termination(capsys):
    def own(*_):
        raise AssertionError("nobody sent a signal")

    before = signal.signal(signal.SIGTERM, own)
    try:
        assert main(["info"]) == 0
        assert main(["no-such-command"]) == 2
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    capsys.readouterr()
