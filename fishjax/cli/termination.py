"""SIGTERM, which schedulers and `docker stop` send, as an exception like that of Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Terminated", "termination_raises"]


class Terminated(KeyboardInterrupt):
    """SIGTERM came; what lets Ctrl-C pass lets this pass as well."""


@contextlib.contextmanager
def termination_raises() -> Iterator[None]:
    """Inside the block SIGTERM raises `Terminated` in the main thread; afterwards it is as before.

    A handler that the program around us has set stays, and so does that SIGTERM is ignored. Further
    ones are ignored while the first unwinds: `timeout` and schedulers send it to the process and
    again to its group.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: Any) -> None:
    del frame
    signal.signal(number, signal.SIG_IGN)
    raise Terminated
