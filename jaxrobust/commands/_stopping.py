"""Commands that are stopped and go on when they are run again."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jaxrobust.training import Interrupted

AGAIN = "what is finished is kept; run the same command again to continue"


class Stopped(Interrupted):
    """A command that saves as it goes was asked to stop.

    Args:
      message: what was stopped, and how to go on.
      signal_number: what asked.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        Exception.__init__(self, message)
        self.signal_number = signal_number


@contextmanager
def resumable(name: str) -> Iterator[None]:
    """While entered, SIGTERM and Ctrl-C end in `Stopped`, whose message says how to go on.

    Training answers them itself, between two steps, and saves its state first.

    Args:
      name: of what is stopped.

    Raises:
      Stopped: after either signal.
    """

    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt  # which nothing takes for a failure to be worked around

    here = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, stop) if here else None
    try:
        yield
    except Interrupted as error:
        said = getattr(error, "progress", None) or str(error).partition(", continue")[0]
        raise Stopped(f"{said}; {AGAIN}", error.signal_number) from None
    except KeyboardInterrupt:
        number = received[0] if received else int(signal.SIGINT)
        raise Stopped(f"{name} stopped by signal {number}; {AGAIN}", number) from None
    finally:
        if here:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
