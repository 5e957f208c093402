"""Ends a test that hangs. A limit for broken code, not a measurement: what it guards takes a fraction of a second."""

import contextlib
import signal


class Hung(BaseException):
    """Not an Exception, so that nothing under test can catch it."""


@contextlib.contextmanager
def hang_guard(seconds=120):
    def stop(_number, _frame):
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
