"""Orbax where its failures stay one exception: no tracebacks in the log, no threads left behind."""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["orbax_apart"]

_SECONDS = 10
_ONE = threading.Lock()  # what is set below is the process's


@contextlib.contextmanager
def orbax_apart() -> Iterator[Callable[..., Any]]:
    """Gives `run(function, *args)`, which calls a function that uses Orbax.

    It runs in a thread of its own: Ctrl-C, which reaches the main thread alone, never cuts a write
    in two, and Orbax needs a thread without a running event loop, which a notebook's is not. What
    Orbax logs beside raising it is dropped, and its event loops end when their tasks have.
    """
    with _ONE, _quiet_loops(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield lambda function, *args: pool.submit(function, *args).result()


@contextlib.contextmanager
def _quiet_loops() -> Iterator[None]:
    logger, policy = logging.getLogger("absl"), asyncio.get_event_loop_policy()
    logger.addFilter(_refuse)
    asyncio.set_event_loop_policy(_Policy())
    try:
        yield
    finally:
        for thread in threading.enumerate():
            if type(thread).__module__.startswith("orbax."):  # it would log how it failed
                thread.join(_SECONDS)
        asyncio.set_event_loop_policy(policy)
        logger.removeFilter(_refuse)


class _Loop(asyncio.SelectorEventLoop):
    """Closes when its tasks have ended, and says nothing of how.

    After one failed write Orbax closes its loop while others are under way; what they say to a
    closed loop would be printed as errors of their own. One that fails just as the loop stops has
    nobody left to hear of it, which asyncio would log.
    """

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        del context

    def close(self) -> None:
        left = set() if self.is_closed() else asyncio.all_tasks(self)
        if left:
            self.run_until_complete(asyncio.wait(left, timeout=_SECONDS))
        super().close()


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _Loop()


def _refuse(record: logging.LogRecord) -> bool:
    del record
    return False
