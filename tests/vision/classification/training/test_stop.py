import os
import signal

import pytest

from official.vision.classification.training.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_handlers_are_put_back(number):
    before = [signal.getsignal(each) for each in StopRequest.SIGNALS]
    with StopRequest() as stop:
        assert not stop.came
        os.kill(os.getpid(), number)
        assert stop.came
        assert stop.signal_name == signal.Signals(number).name
        assert stop.exit_code == 128 + number
        assert [signal.getsignal(each) for each in StopRequest.SIGNALS] == before
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
