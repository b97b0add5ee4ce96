"""A signal that meets a callback of the garbage collector is not lost."""

import gc
import os
import signal
import sys
import time

import pytest

from fishjax.cli.termination import Terminated, termination_raises

pytestmark = pytest.mark.usefixtures("own_signals")


@pytest.fixture
def send():
    """Has the next collection send a signal, from a call inside its callback."""
    wanted, sent = [], []

    def deliver(number):
        os.kill(os.getpid(), number)
        for _ in range(100):  # moments at which Python looks for signals
            time.sleep(0)

    def callback(phase, info):
        del phase, info
        if wanted:
            sent.append(wanted.pop())
            deliver(sent[-1])

    gc.callbacks.append(callback)
    yield lambda number: (wanted.append(number), sent)[1]
    gc.callbacks.remove(callback)


@termination_raises()
def collected_and_then_at_work():
    gc.collect()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_it_comes_again(number, raised, send):
    sent = send(number)
    with pytest.raises(raised) as caught:
        collected_and_then_at_work()
    assert type(caught.value) is raised
    assert sent == [number]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_python_alone_loses_it(send, monkeypatch):
    """The reason for the handlers: once this fails they can go."""
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: lost.append(dropped.exc_type))
    sent = send(signal.SIGINT)
    gc.collect()
    assert sent == [signal.SIGINT]
    assert lost == [KeyboardInterrupt]
