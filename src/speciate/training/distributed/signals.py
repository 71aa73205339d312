"""Requests to stop: on a signal, a run finishes its step, saves, and exits with status 75; a retry resumes it."""

import signal
from types import FrameType

STOPPED = 75
"""Exit status of a run that stopped on request and can be resumed (EX_TEMPFAIL of sysexits.h)."""

REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Remembers the first request to stop; a second SIGINT interrupts at once, as a person at a keyboard expects."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        for number in REQUESTS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def __bool__(self) -> bool:
        return self.received is not None
