"""SIGTERM and Ctrl-C as a request that the loop answers between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType


class Interrupted(Exception):
    """The run was asked to stop and has saved its state.

    Args:
      progress: what was stopped, and which step was saved.
      hint: how to go on.
      signal_number: what asked.

    Attributes:
      progress: as given; the message is `progress; hint`.
      signal_number: a process ends with 128 + that number.
    """

    def __init__(self, progress: str, hint: str, signal_number: int) -> None:
        super().__init__(f"{progress}; {hint}")
        self.progress = progress
        self.signal_number = signal_number


class StopRequest:
    """While entered, SIGTERM and SIGINT only set `received`; a second SIGINT acts as usual.

    Inside of `shielded` it does nothing: Orbax, interrupted while it writes, loses the checkpoint
    and prints tracebacks of its threads. The run ends then anyway.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._shielded = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None: a handler that Python did not install and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Lets what is being written be finished."""
        before, self._shielded = self._shielded, True
        try:
            yield
        finally:
            self._shielded = before

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            if not self._shielded:
                raise KeyboardInterrupt
            return
        self.received = number
