"""One fuzzer in a process of its own: `python -m benchmarks.fuzz._worker READER [LIBFUZZER...]`.

The reader may raise what it documents. Anything else ends the process with the file that did it: an
undocumented exception, more than two seconds, too much memory, or an attempt to run or to import
what the file names.
"""

import pathlib
import sys
import tempfile
import time
import tracemalloc
from typing import Any

import atheris

from benchmarks.fuzz._edits import edited
from benchmarks.fuzz._readers import FIXED, READERS

SECONDS = 2.0
FORBIDDEN = (
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pickle.find_class",
    "socket.connect",
    "subprocess.Popen",
)


class Guard:
    """Refuses, while a file is read, what reading never needs."""

    def __init__(self) -> None:
        self.known: set[str] | None = None  # top-level modules; `None` while nothing is read

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A hook of `sys.addaudithook`."""
        if self.known is None:
            return
        module = str(arguments[0]).split(".")[0] if event == "import" else ""
        if event in FORBIDDEN or (module and module not in self.known):
            self.known = None
            raise AssertionError(f"reading tried {event} {arguments!r:.200}")


def main() -> None:
    """Fuzzes until libFuzzer's limit."""
    name, *options = sys.argv[1:]
    reader, guard = READERS[name], Guard()
    path = pathlib.Path(tempfile.mkdtemp()) / f"file{reader.ending}"
    with atheris.instrument_imports(include=["jaxrobust", "zipfile", "pickletools"]):
        import jaxrobust.commands
        import jaxrobust.data
        import jaxrobust.models
        import jaxrobust.training  # noqa: F401
    sys.addaudithook(guard)

    seeds = sorted(p for p in pathlib.Path(options[-1]).iterdir() if p.suffix == reader.ending)

    def one(content: bytes) -> None:
        if reader.ending in (".json", ".jsonl"):
            draw = atheris.FuzzedDataProvider(content[1:])
            content = edited(content, seeds, lambda most: draw.ConsumeIntInRange(0, most - 1))
        path.write_bytes(content)
        tracemalloc.reset_peak()
        before, start = tracemalloc.get_traced_memory()[0], time.process_time()
        guard.known = {module.split(".")[0] for module in sys.modules}
        try:
            reader.read(path)
        except (ValueError, OSError):
            pass
        finally:
            guard.known = None
        seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1] - before
        assert seconds < SECONDS, f"{seconds:.1f} s for {len(content)} bytes"
        allowed = FIXED + reader.times * len(content)
        assert peak <= allowed, f"{peak:,} bytes of memory for a file of {len(content):,}"

    for seed in seeds:  # what is loaded late is loaded now
        path.write_bytes(seed.read_bytes())
        reader.read(path)
    tracemalloc.start()
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
