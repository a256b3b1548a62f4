"""Files that are complete or absent, and one-line errors for disks that are full."""

import contextlib
import errno
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from jaxrobust.files import check_entries, replacing
from jaxrobust.inputs import InputError
from jaxrobust.reasons import first_line

FULL = (errno.ENOSPC, errno.EDQUOT)
# What reading damaged bytes of an npz raises.
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def default_data_dir(data_dir: str | None) -> pathlib.Path:
    """The folder of the data sets: the argument, `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`.

    Raises:
      InputError: if there is no home directory, and the folder is to be in it.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expanded(chosen, name="data_dir", hint=", or set TFDS_DATA_DIR")


def expanded(path: str | os.PathLike[str], *, name: str = "path", hint: str = "") -> pathlib.Path:
    """A path with `~` replaced by the home directory.

    Args:
      path: as it was given.
      name: of the argument, for the message.
      hint: what else could be done, for the message.

    Returns:
      The path.

    Raises:
      InputError: if it is no path, or starts with `~` and there is no home directory.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{name} must be a path, got {path!r}")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{name} {path} is in a home directory, and none is known; set HOME, or give {name} "
            f"without ~{hint}"
        ) from error


@contextlib.contextmanager
def room_on_disk(folder: pathlib.Path) -> Iterator[None]:
    """Turns "no space left on device" into one line that says where.

    Raises:
      ValueError: if the body runs out of room on its disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ValueError(
            f"no room on the disk of {folder}: free some space or choose another data_dir"
        ) from error


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an uncompressed npz; the file is whole or absent.

    Raises:
      ValueError: if there is no room on the disk.
    """
    with room_on_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an npz, without unpickling.

    Raises:
      ValueError: in one line, if there is no such file or it is damaged.
    """
    if not path.is_file():
        state = "is a folder, not an npz" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {state}")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array, not an npz")
            with zipfile.ZipFile(file) as entries:
                check_entries(entries, path.stat().st_size)
                for entry in entries.infolist():
                    _check_size(entries, entry)
            return dict(archive)
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged or no npz: {first_line(error)}") from error


def _check_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuses a header that asks for more memory than its array has bytes.

    Raises:
      ValueError: if it does.
    """
    magic = np.lib.format.MAGIC_PREFIX
    with archive.open(entry) as file:
        if file.read(len(magic)) != magic:
            return  # no array: NumPy takes its bytes as they are
        file.seek(0)
        version = np.lib.format.read_magic(file)
        old = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    size = math.prod(shape) * dtype.itemsize
    if size > entry.file_size:
        raise ValueError(f"{entry.filename} has {entry.file_size} bytes, its shape {shape} {size}")
