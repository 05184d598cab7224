"""Calls of foreign code that may never return."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, Thread, local
from time import monotonic
from typing import Any, TypeVar

Result = TypeVar("Result")

_TRIES = 20
_PAUSE = 0.05


_own = local()
"""`shield`: the lock of a thread that `within` has made, held where it must not be stopped."""


class _Stop(SystemExit):
    """Raised inside a call that takes too long; a thread that ends by it ends silently."""


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """What `call()` returns or raises, if it takes no more than `seconds` of wall clock.

    The call runs in a thread of its own, from whatever thread this is called, so that no signal is needed, and the
    caller is never interrupted. A call that is late is stopped between two steps of Python; one that sits in a single
    call of C code, or catches everything for ever, is left behind as a daemon.

    Raises:
        TimeoutError: the call takes longer.
    """
    returned: list[Result] = []
    raised: list[BaseException] = []
    ended: list[float] = []
    shield = RLock()

    def work() -> None:
        _own.shield = shield
        try:
            returned.append(call())
        except BaseException as error:  # it is raised again below, in the caller's thread
            raised.append(error)
        ended.append(monotonic())

    thread = Thread(target=work, daemon=True)
    began = monotonic()
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _stop(thread, shield)
        raise TimeoutError(f"not done after {seconds:g} s")
    if not ended or ended[0] - began > seconds:  # done while nobody looked
        raise TimeoutError(f"not done after {seconds:g} s")
    if raised:
        raise raised[0]
    return returned[0]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What is in the block, and does not take long, is done to its end, also in a call that takes too long by then."""
    shield = getattr(_own, "shield", None)
    if shield is None:
        yield
        return
    with shield:
        yield


def _stop(thread: Thread, shield: Any) -> None:
    """Raise `_Stop` inside the thread until it is dead; code that catches it may need it several times."""
    ident: Any = thread.ident
    for _ in range(_TRIES):
        if shield.acquire(timeout=_PAUSE):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(_Stop))
            shield.release()
        thread.join(_PAUSE)
        if not thread.is_alive():
            return
