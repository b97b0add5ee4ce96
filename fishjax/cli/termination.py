"""SIGTERM, which schedulers and `docker stop` send, as an exception like that of Ctrl-C.

Both are kept from getting lost: Python drops what is raised inside a callback of its garbage
collector, and JAX has one, which runs so often while programs are traced that a signal in some
tens met it.
"""

import _thread
import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Terminated", "termination_raises"]

_AGAIN_S = 0.02


class Terminated(KeyboardInterrupt):
    """SIGTERM came; what lets Ctrl-C pass lets this pass as well."""


@contextlib.contextmanager
def termination_raises() -> Iterator[None]:
    """Inside the block SIGTERM raises `Terminated` in the main thread; afterwards it is as before.

    A handler that the program around us has set stays, and so does that SIGTERM is ignored. Further
    ones are ignored while the first unwinds: `timeout` and schedulers send it to the process and
    again to its group. SIGINT raises `KeyboardInterrupt` as everywhere in Python. Where the garbage
    collector would drop the exception, either signal comes again a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with (
        _handled(signal.SIGTERM, signal.SIG_DFL, _terminate),
        _handled(signal.SIGINT, signal.default_int_handler, _interrupt),
    ):
        yield


@contextlib.contextmanager
def _handled(number: signal.Signals, usual: Any, ours: Any) -> Iterator[None]:
    """With our handler, where the usual one is set."""
    before = signal.getsignal(number)
    if before != usual:
        yield
        return
    signal.signal(number, ours)
    try:
        yield
    finally:
        signal.signal(number, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    if _is_collecting(frame):
        _once_more(number)
        return
    signal.signal(number, signal.SIG_IGN)
    raise Terminated


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _is_collecting(frame):
        _once_more(number)
        return
    signal.default_int_handler(number, frame)


def _is_collecting(frame: FrameType | None) -> bool:
    """Whether a callback of the garbage collector is running."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False


def _once_more(number: int) -> None:
    later = threading.Timer(_AGAIN_S, _thread.interrupt_main, (number,))
    later.daemon = True
    later.start()
