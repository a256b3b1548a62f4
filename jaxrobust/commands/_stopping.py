"""Commands that continue when they are run again after an interruption."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jaxrobust.training import Interrupted

AGAIN = "what is finished is kept; run the same command again to continue"


@contextmanager
def resumable(name: str) -> Iterator[None]:
    """While entered, SIGTERM and Ctrl-C raise `Interrupted`, whose message says how to continue.

    Training handles these signals itself, between two steps, and saves its state first.

    Args:
      name: the name of the stopped command.

    Raises:
      Interrupted: after either signal.
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
        raise Interrupted(error.progress, AGAIN, error.signal_number) from None
    except KeyboardInterrupt:
        number = received[0] if received else int(signal.SIGINT)
        raise Interrupted(f"{name} stopped by signal {number}", AGAIN, number) from None
    finally:
        if here:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
