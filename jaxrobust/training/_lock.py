"""A run's folder belongs to one trainer at a time."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from jaxrobust.locks import FolderInUseError as FolderInUseError
from jaxrobust.locks import held
from jaxrobust.processes import from_first
from jaxrobust.storage import in_bucket


@contextlib.contextmanager
def holding(folders: Sequence[epath.Path], *, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other trainers out of folders; a folder in which nothing was written is removed.

    Of several processes the first one locks. Buckets know no locks.

    Args:
      folders: made if missing.
      say: told where a file system cannot lock.

    Raises:
      FolderInUseError: if another process, or another call of this one, trains there.
    """
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            for folder in folders:
                if not in_bucket(folder):
                    stack.enter_context(held(pathlib.Path(folder), work="training", say=say))

        from_first(lock)
        yield
