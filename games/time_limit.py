"""Calls of foreign code that may never return."""

import ctypes
from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")

_TRIES = 20
_PAUSE = 0.05


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

    def work() -> None:
        try:
            returned.append(call())
        except BaseException as error:  # it is raised again below, in the caller's thread
            raised.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _stop(thread)
        raise TimeoutError(f"not done after {seconds:g} s")
    if raised:
        raise raised[0]
    return returned[0]


def _stop(thread: Thread) -> None:
    """Raise `_Stop` inside the thread until it is dead; code that catches it may need it several times."""
    ident: Any = thread.ident
    for _ in range(_TRIES):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(_Stop))
        thread.join(_PAUSE)
        if not thread.is_alive():
            return
