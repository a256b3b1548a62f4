"""Opens files of weights: safetensors, PyTorch's zip format and its older stream."""

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import math
import mmap
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrobust.files import check_entries
from jaxrobust.models._torch_pickle import RefusedError, Storage, Tensor, load_pickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


# A small file may name the same bytes as many tensors; shared and tied weights do it a few times.
MOST = 10


class _Opened(NamedTuple):
    tree: Any
    is_tensor: Callable[[Any], bool]
    fetch: Callable[[Any], np.ndarray]
    nbytes: Callable[[Any], int]


def read_torch_file(
    path: str | os.PathLike[str], select: Callable[[Any, Callable[[Any], bool]], Any]
) -> Any:
    """Reads the part of the file that `select(tree, is_tensor)` returns; tensors as NumPy arrays.

    The tree holds dicts, lists, plain values and tensors that are not read yet, so that a part
    which is not selected (an optimizer's state) costs nothing.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"path must be a file of weights; there is no file {path}")
    with path.open("rb") as file, contextlib.ExitStack() as stack:
        with _one_line_errors(path):
            opened = _open(path, file, stack)
        selected = select(opened.tree, opened.is_tensor)
        with _one_line_errors(path):
            return _Reader(opened, MOST * path.stat().st_size)(selected)


@contextlib.contextmanager
def _one_line_errors(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: damaged, or not a file of weights ({reason})") from error


def _open(path: pathlib.Path, file: BinaryIO, stack: contextlib.ExitStack) -> _Opened:
    start = file.read(9)
    file.seek(0)
    if start[8:] == b"{":
        return _open_safetensors(file)
    if importlib.util.find_spec("torch") is not None:
        # Where PyTorch's reader fails too, ours gives the clear reason.
        with contextlib.suppress(Exception):
            return _open_with_torch(path)
    if start[:2] == b"PK":
        archive = stack.enter_context(zipfile.ZipFile(file))
        check_entries(archive, path.stat().st_size)
        return _open_zip(archive)
    if start[:1] == b"\x80":
        return _open_legacy(file)
    raise ValueError("it is neither safetensors nor written by torch.save")


class _Reader:
    """A tree with its tensors as arrays; each object of the file is read once.

    Args:
      opened: the file.
      most: bytes of all tensors together.
    """

    def __init__(self, opened: _Opened, most: int) -> None:
        self._opened, self._left = opened, most
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        """The value with arrays in the place of tensors.

        Raises:
          ValueError: if there is more than there may be.
        """
        if id(value) not in self._done:
            self._done[id(value)] = self._read(value)
        return self._done[id(value)]

    def _read(self, value: Any) -> Any:
        if self._opened.is_tensor(value):
            self._left -= self._opened.nbytes(value)
            if self._left < 0:
                raise ValueError(f"its tensors have more than {MOST} times the bytes of the file")
            return self._opened.fetch(value)
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        return value


def _open_safetensors(file: BinaryIO) -> _Opened:
    """An 8-byte length, a JSON header with each tensor's type, shape and place, the data."""
    start, end = 8 + int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
    if start > end:
        raise ValueError(f"a header of {start - 8} bytes in a file of {end}")
    header = json.loads(file.read(start - 8), object_pairs_hook=_once)
    header.pop("__metadata__", None)

    def nbytes(entry: dict[str, Any]) -> int:
        return math.prod(entry["shape"]) * _dtype(_SAFETENSORS_DTYPES[entry["dtype"]]).itemsize

    def fetch(entry: dict[str, Any]) -> np.ndarray:
        dtype = _dtype(_SAFETENSORS_DTYPES[entry["dtype"]])
        first, last = entry["data_offsets"]
        size = nbytes(entry)
        if not 0 <= first <= last <= end - start or last - first != size:
            raise ValueError(f"a tensor of shape {entry['shape']} at bytes {first} to {last}")
        file.seek(start + first)
        return np.frombuffer(file.read(size), dtype).reshape(entry["shape"])

    def is_tensor(value: Any) -> bool:
        return isinstance(value, dict) and "data_offsets" in value

    return _Opened(header, is_tensor, fetch, nbytes)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dict of a JSON object without a name that stands there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} is there twice")
    return found


def _open_with_torch(path: pathlib.Path) -> _Opened:
    torch: Any = importlib.import_module("torch")
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise NotImplementedError("its weights_only could be made to run code (CVE-2025-32434)")
    tree = torch.load(path, map_location="cpu", weights_only=True)

    def fetch(tensor: Any) -> np.ndarray:
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def is_tensor(value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    return _Opened(tree, is_tensor, fetch, lambda tensor: tensor.nbytes)


def _open_zip(archive: zipfile.ZipFile) -> _Opened:
    """`<name>/data.pkl` beside one uncompressed entry `<name>/data/<key>` for each storage."""
    pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
    if len(pickles) != 1:
        raise ValueError("a zip file without data.pkl: torch.save did not write it")
    root = pickles[0].removesuffix("data.pkl")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("a compressed zip file, which torch.save does not write")
    if f"{root}byteorder" in archive.namelist():
        _check_byte_order(archive.read(f"{root}byteorder") == b"little")
    tree, _ = load_pickle(io.BytesIO(archive.read(pickles[0])))

    @functools.lru_cache(maxsize=1)  # tensors often share a storage with the one before
    def elements(key: str, dtype: str) -> np.ndarray:
        return np.frombuffer(archive.read(f"{root}data/{key}"), _dtype(dtype))

    def fetch(tensor: Tensor) -> np.ndarray:
        return tensor.view(elements(tensor.storage.key, tensor.storage.dtype)).copy()

    return _Opened(tree, lambda value: isinstance(value, Tensor), fetch, _nbytes)


def _open_legacy(file: BinaryIO) -> _Opened:
    """Before PyTorch 1.6: five pickles one after the other, then the storages."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pickles:
        if load_pickle(pickles)[0] != _LEGACY_MAGIC:
            raise ValueError("a pickle that torch.save did not write")
        if load_pickle(pickles)[0] != _LEGACY_PROTOCOL:
            raise ValueError("an unknown version of PyTorch's format")
        _check_byte_order(load_pickle(pickles)[0]["little_endian"])
        tree, storages = load_pickle(pickles)
        keys, _ = load_pickle(pickles)
        file.seek(pickles.tell())
    places: dict[str, int] = {}
    for key in map(str, keys):
        storage = storages[key]
        if int.from_bytes(file.read(8), "little") != storage.size:
            raise ValueError(f"storage {key} does not have its {storage.size} elements")
        places[key] = file.tell()
        file.seek(storage.size * _dtype(storage.dtype).itemsize, os.SEEK_CUR)
    length = os.fstat(file.fileno()).st_size

    @functools.lru_cache(maxsize=1)
    def elements(storage: Storage) -> np.ndarray:
        dtype, place = _dtype(storage.dtype), places[storage.key]
        file.seek(place)
        size = min(storage.size * dtype.itemsize, length - place)  # never more than there is
        return np.frombuffer(file.read(size), dtype)

    def fetch(tensor: Tensor) -> np.ndarray:
        return tensor.view(elements(storages[tensor.storage.key])).copy()

    return _Opened(tree, lambda value: isinstance(value, Tensor), fetch, _nbytes)


def _nbytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * _dtype(tensor.storage.dtype).itemsize


def _check_byte_order(little: bool) -> None:
    if not little:
        raise ValueError("written on a big-endian machine")


def _dtype(name: str) -> np.dtype:
    dtype = np.dtype(jnp.bfloat16) if name == "bfloat16" else np.dtype(name)
    return dtype if dtype == jnp.bfloat16 else dtype.newbyteorder("<")
