import os
import signal

import pytest

from official.vision.classification.training.stop import StopRequest

URGENT = (signal.SIGINT, signal.SIGTERM)
WARNINGS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


@pytest.mark.parametrize("number", URGENT)
def test_the_first_signal_is_noted_and_the_handlers_are_put_back(number):
    before = [signal.getsignal(each) for each in StopRequest.SIGNALS]
    with StopRequest() as stop:
        assert not stop.came
        os.kill(os.getpid(), number)
        assert stop.came
        assert stop.signal_name == signal.Signals(number).name
        assert stop.exit_code == 128 + number
        assert [signal.getsignal(each) for each in URGENT] == before[:2]
    assert [signal.getsignal(each) for each in StopRequest.SIGNALS] == before


def test_the_second_ctrl_c_is_let_through():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.came
        os.kill(os.getpid(), signal.SIGINT)


def test_nothing_happens_without_a_signal():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        pass
    assert not stop.came
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", WARNINGS)
def test_a_warning_may_come_more_than_once(number):
    """A terminal that is lost, and its shell, both send SIGHUP."""
    with StopRequest() as stop:
        for _ in range(3):
            os.kill(os.getpid(), number)
        assert (stop.signal_name, stop.exit_code) == (number.name, 128 + number)
        os.kill(os.getpid(), signal.SIGTERM)  # the first of its kind is noted too
        assert stop.signal_name == number.name
    assert all(signal.getsignal(each) == signal.SIG_DFL for each in WARNINGS)


def test_what_is_ignored_stays_ignored():
    """As by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.came
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
