import signal
import threading

import pytest

from bottleneck.finetune.interrupts import kept_waiting, raise_again


def test_ctrl_c_waits_and_comes_again_when_asked():
    with kept_waiting() as waiting:
        assert waiting() is None
        signal.raise_signal(signal.SIGINT)
        assert waiting() is signal.SIGINT

    with pytest.raises(KeyboardInterrupt):
        raise_again(waiting())


def test_second_ctrl_c_does_not_wait():
    with kept_waiting():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_afterwards_signals_do_what_they_did():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    with kept_waiting():
        assert signal.getsignal(signal.SIGTERM) != before[1]

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_handler_of_the_program_stays():
    noted = []
    usual = signal.signal(signal.SIGTERM, lambda *_: noted.append("ours"))
    try:
        with kept_waiting() as waiting:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, usual)

    assert (noted, waiting()) == (["ours"], None)


def test_other_threads_change_nothing():
    seen = []

    def work() -> None:
        with kept_waiting() as waiting:
            seen.extend([signal.getsignal(signal.SIGINT), waiting()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [signal.default_int_handler, None]


def test_nothing_that_waits_is_nothing_to_raise():
    raise_again(None)
