"""Subprocesses of the real command: started, stopped by signals, their output collected."""

import fcntl
import os
import pathlib
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SECONDS = 300  # without an end by then a process hangs


class Place(NamedTuple):
    """Where a command runs.

    Attributes:
      environment: changes of the environment variables; `None` removes one.
      before: words before the command, which end by executing it.
      columns: width of a terminal; without one, input is empty and output goes to files.
    """

    environment: Mapping[str, str | None] = {}
    before: tuple[str, ...] = ()
    columns: int | None = None


class Ended(NamedTuple):
    """How a command has ended.

    Attributes:
      code: its exit code; `None` if it hung.
      out: standard output.
      err: standard error; on a terminal both are here.
    """

    code: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything that it printed."""
        return self.out + self.err

    def lines(self) -> list[str]:
        """The lines on standard error that are no warnings."""
        said = [line for line in self.err.splitlines() if line.strip()]
        return [line for line in said if not line.startswith("warning: ")]


class Running:
    """A running `jaxrobust` command; its output never blocks it.

    Args:
      words: the arguments of `jaxrobust`.
      place: where it runs.
    """

    def __init__(self, words: Sequence[str], place: Place = Place()) -> None:  # noqa: B008
        command = [*place.before, sys.executable, "-m", "jaxrobust.cli", *words]
        changed = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": None, **place.environment}
        # Processes that join each other on this machine must not ask a proxy for it.
        inherited = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        environment = {k: v for k, v in {**inherited, **changed}.items() if v is not None}
        # Files, because nobody reads pipes while the command runs; `end` closes them.
        self._out, self._err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
        self._terminal = None if place.columns is None else _Terminal(place.columns)
        end = None if self._terminal is None else self._terminal.end
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if end is None else end,
            stdout=self._out if end is None else end,
            stderr=self._err if end is None else end,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the whole group, and not this process
        )

    def stop(self, name: str, times: int, seconds: float) -> None:
        """Sends a signal several times, spread over some seconds."""
        number = signal.Signals[name]
        for count in range(times):
            if count:
                time.sleep(seconds / times)
            if self.process.poll() is not None:
                return
            if number == signal.SIGINT:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)

    def alive_after(self, seconds: float) -> bool:
        """Waits, and returns whether the command is still running."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def kill(self) -> None:
        """Ends a command that is still running, and waits for that."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def end(self, seconds: float = SECONDS) -> Ended:
        """Waits for the end; a command that hangs is killed."""
        code: int | None = None
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()
        if self._terminal is not None:
            return Ended(code, "", self._terminal.text())
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return Ended(code, *texts)


class _Terminal:
    """A terminal of some columns, whose output is collected."""

    def __init__(self, columns: int) -> None:
        self._ours, self.end = pty.openpty()
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 1 << 16)
            except OSError:  # Linux, once the other end is closed
                return
            if not part:
                return
            self._parts.append(part)

    def text(self) -> str:
        """What was printed; the terminal is closed."""
        os.close(self.end)
        self._thread.join(10)
        os.close(self._ours)
        return b"".join(self._parts).decode(errors="replace")


def hear_interrupts() -> None:
    """Lets subprocesses hear Ctrl-C also where a shell started this process in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def without_privileges() -> tuple[str, ...]:
    """Words before a command that make permissions of files hold for root too.

    Raises:
      RuntimeError: for root without `setpriv`.
    """
    if os.geteuid() != 0:
        return ()
    words = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise RuntimeError(f"root needs setpriv of util-linux: {tried.stderr.strip()}")
    return words


def limited_files(kilobytes: int) -> tuple[str, ...]:
    """Words before a command that limit the size of every file that it writes."""
    return ("sh", "-c", 'ulimit -f "$0"; exec "$@"', str(2 * kilobytes))


def hindered(folder: pathlib.Path, settings: Mapping[str, float]) -> dict[str, str | None]:
    """Variables that make the clock of a command jump, or its disk slow (Linux).

    Args:
      folder: for the compiled library.
      settings: of `hindrance.c`, without their prefix.

    Raises:
      RuntimeError: without a C compiler.
    """
    source, library = pathlib.Path(__file__).with_name("hindrance.c"), folder / "hindrance.so"
    if not library.exists():
        compiler = shutil.which("cc")
        if compiler is None:
            raise RuntimeError("a slow disk and a clock that jumps need a C compiler, `cc`")
        words = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(words, check=True)
    named = {f"HINDER_{name}": str(value) for name, value in settings.items()}
    return {"LD_PRELOAD": str(library), **named}


def older_versions(folder: pathlib.Path, process: Running, into: pathlib.Path) -> Ended:
    """Waits for a command, and keeps the first version of every file that it changes later."""
    while process.alive_after(0.05):
        # Unlike `rglob`, this bears folders that are renamed in the meantime.
        for file in [pathlib.Path(at, name) for at, _, names in os.walk(folder) for name in names]:
            kept = into / file.relative_to(folder)
            try:
                content = file.read_bytes()
            except OSError:  # renamed or deleted
                continue
            if content and not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(content)
    return process.end()
