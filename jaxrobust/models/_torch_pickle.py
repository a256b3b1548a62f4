"""Reads the pickles in PyTorch checkpoints without running what they ask for.

A pickle is a program: it may call any importable function. This reader knows a short list of names,
none of which it imports; each stands for something inert of our own. Every other name is refused.
"""

import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Storage class of PyTorch -> type of its elements.
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_STORAGE_MODULES = ("torch", "torch.cuda")
# The instructions that a pickle of containers, plain values and tensors consists of; and NEWOBJ, so
# that a file which makes objects is refused by the name of their class.
_INSTRUCTIONS = re.compile(
    r"PROTO|FRAME|STOP|MARK|POP|MEMOIZE|(LONG_)?BIN(PUT|GET)|GLOBAL|STACK_GLOBAL|REDUCE|BUILD"
    r"|NEWOBJ|BINPERSID|EMPTY_(DICT|LIST|SET|TUPLE)|SETITEMS?|APPENDS?|ADDITEMS|TUPLE[123]?"
    r"|NONE|NEWTRUE|NEWFALSE|BININT[12]?|LONG1|BINFLOAT|(SHORT_)?BIN(UNICODE|STRING|BYTES)"
)


class RefusedError(ValueError):
    """A pickle asks for something that reading weights does not need."""


class Storage(NamedTuple):
    """Where the elements of a tensor are; `offset` and `size` count elements."""

    key: str
    dtype: str
    size: int
    offset: int = 0


class Tensor(NamedTuple):
    """A tensor whose elements are not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, elements: np.ndarray) -> np.ndarray:
        """This tensor as a read-only view of the elements of its storage."""
        if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides, 0)) < 0:
            raise ValueError(f"tensor of shape {self.shape} with strides {self.strides}")
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        empty = 0 in self.shape
        if self.offset < 0 or (not empty and self.offset + last >= len(elements)):
            raise ValueError(f"tensor of shape {self.shape} reaches beyond its storage")
        strides = [step * elements.itemsize for step in self.strides]
        # Within bounds: checked above.
        return np.lib.stride_tricks.as_strided(
            elements[self.offset :], self.shape, strides, writeable=False
        )


class _Mapping(dict):
    """What an OrderedDict of the file becomes; its attributes (`_metadata`) are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


# These NamedTuples have no attribute that a pickle's BUILD instruction could set.
class _StorageType(NamedTuple):
    dtype: str


class _Known(NamedTuple):
    """One of the names that a checkpoint may ask for; calling it does what is said here."""

    name: str

    def __call__(self, *args: Any) -> Any:
        return _MEANINGS[self.name](*args)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or not all(type(n) is int for n in numbers):
        raise ValueError("tensor without a storage")
    return Tensor(storage, storage.offset + offset, tuple(shape), tuple(strides))


def _of_subclass(rebuild: Any, _: Any, args: Any, __: Any = None) -> Any:
    if not isinstance(rebuild, _Known):
        raise ValueError(f"tensor rebuilt by {rebuild!r}")
    return rebuild(*args)


_MEANINGS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _Mapping,
    "collections.Counter": _Mapping,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch.nn.parameter.Parameter": lambda data, *_: data,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": lambda *args: None,
    "__builtin__.set": lambda items=(): set(items),
    "builtins.set": lambda items=(): set(items),
}


def load_pickle(file: Any) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle from a file and leaves the file at its end.

    Args:
      file: an open file whose `read(n)` never takes memory for more than there is to read, such
        as a `BytesIO` or an `mmap`.

    Returns:
      What it holds, and the storages of its tensors by key.
    """
    start = file.tell()
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if not _INSTRUCTIONS.fullmatch(instruction.name):
            raise ValueError(f"a pickle with the instruction {instruction.name}")
        if instruction.name in ("BINPUT", "LONG_BINPUT") and (argument or 0) > count:
            # Python takes memory for every smaller number as well.
            raise ValueError(f"a pickle that stores under {argument} as item {count}")
    file.seek(start)
    unpickler = _Unpickler(file, encoding="utf-8")
    return unpickler.load(), unpickler.storages


class _Unpickler(pickle.Unpickler):
    """An unpickler for which only the names of this file exist."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The inert counterpart of `module.name`."""
        full = f"{module}.{name}"
        if module in _STORAGE_MODULES and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if full in _MEANINGS:
            return _Known(full)
        raise RefusedError(
            f"refused: it asks for {full}, which weights do not need; "
            "if you trust the file, save its state_dict alone with PyTorch"
        )

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that `('storage', type, key, location, size, [view])` describes."""
        kind, storage_type, key, _, size, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise ValueError(f"unknown persistent entry {kind!r} of {storage_type!r}")
        key = str(key)
        storage = Storage(key, storage_type.dtype, int(size))
        self.storages[key] = storage
        if view and view[0] is not None:  # old files: (view key, offset, size)
            return storage._replace(offset=int(view[0][1]))
        return storage
