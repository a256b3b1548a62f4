"""CIFAR-10 and CIFAR-100 from their official archives, in the original order."""

import pathlib
import tarfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrobust.data import _class_names
from jaxrobust.data._dataset import Dataset
from jaxrobust.data._download import download
from jaxrobust.data._files import default_data_dir, read_npz, write_npz

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Archive:
    """A binary archive: records of label bytes and 3 x 32 x 32 pixels.

    Attributes:
      name: of the data set.
      url: of the archive.
      checksum: of the archive, `algorithm:hexadecimal`.
      folder: inside it.
      train_files: in the folder, in order.
      test_files: in the folder, in order.
      label_bytes: per record; the last one is the class.
      class_names: of the classes that the labels count.
      train_size: number of training records.
      test_size: number of test records.
    """

    name: str
    url: str
    checksum: str
    folder: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    label_bytes: int
    class_names: tuple[str, ...]
    train_size: int = 50_000
    test_size: int = 10_000


# The binary archives: unlike the Python ones they need no unpickling.
CIFAR10 = Archive(
    name="cifar10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
    folder="cifar-10-batches-bin",
    train_files=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test_files=("test_batch.bin",),
    label_bytes=1,
    class_names=_class_names.CIFAR10,
)
CIFAR100 = Archive(
    name="cifar100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    checksum="md5:03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    train_files=("train.bin",),
    test_files=("test.bin",),
    label_bytes=2,  # 20 coarse classes, then 100 fine ones
    class_names=_class_names.CIFAR100,
)


def cifar10(*, data_dir: str | None = None) -> Dataset:
    """CIFAR-10 from the official archive: 50,000 / 10,000 colour images of 32 x 32, 10 classes.

    The first use downloads the binary archive (170 MB; an interrupted download is continued),
    checks its md5 and writes `<data_dir>/cifar10.npz`, which later uses read. Without a network
    put `cifar-10-binary.tar.gz` into `<data_dir>/downloads` first. The order is the original
    one, in which published evaluations count their first 1,000 images (`tfds("cifar10")` has
    TFDS's shuffled order).

    Args:
      data_dir: folder of the data sets; default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Returns:
      The data set.

    Raises:
      ValueError: in one line, if the archive cannot be had, a file is damaged, or the disk is
        full.

    Example:
      >>> from jaxrobust import data
      >>> data.cifar10().train_images.shape  # doctest: +SKIP
      (50000, 32, 32, 3)

    References:
      Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return prepared(CIFAR10, default_data_dir(data_dir))


def cifar100(*, data_dir: str | None = None) -> Dataset:
    """CIFAR-100 from the official archive: 50,000 / 10,000 images of 32 x 32, 100 fine classes.

    Prepared as `cifar10` is, from `cifar-100-binary.tar.gz` (169 MB).

    Args:
      data_dir: folder of the data sets; default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Returns:
      The data set.

    Raises:
      ValueError: in one line, if the archive cannot be had, a file is damaged, or the disk is
        full.

    Example:
      >>> from jaxrobust import data
      >>> data.cifar100().num_classes  # doctest: +SKIP
      100

    References:
      Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return prepared(CIFAR100, default_data_dir(data_dir))


def prepared(archive: Archive, data_dir: pathlib.Path) -> Dataset:
    """The archive's data set; downloads and converts it where that is not done yet.

    Raises:
      ValueError: in one line, for whatever goes wrong.
    """
    path = data_dir / f"{archive.name}.npz"
    if not path.exists():
        packed = data_dir / "downloads" / archive.url.rsplit("/", 1)[1]
        download(archive.url, packed, checksum=archive.checksum)
        write_npz(path, unpacked(archive, packed))
    try:
        arrays: dict[str, Any] = read_npz(path)
        sizes = {name: len(array) for name, array in arrays.items()}
        wanted = {
            f"{part}_{kind}": size
            for part, size in (("train", archive.train_size), ("test", archive.test_size))
            for kind in ("images", "labels")
        }
        if sizes != wanted:
            raise ValueError(f"{path} holds {sizes}, not {wanted}")
    except ValueError as error:
        raise ValueError(f"{error}; delete it and run again") from error
    names = archive.class_names
    return Dataset(name=archive.name, num_classes=len(names), class_names=names, **arrays)


def unpacked(archive: Archive, packed: pathlib.Path) -> dict[str, np.ndarray]:
    """Images `[n, 32, 32, 3]` uint8 and labels `[n]` int32 of both parts.

    Raises:
      ValueError: if the archive does not hold what it should.
    """
    arrays = {}
    try:
        with tarfile.open(packed) as tar:
            for part in ("train", "test"):
                files = getattr(archive, f"{part}_files")
                content = b"".join(_member(tar, f"{archive.folder}/{name}") for name in files)
                records = np.frombuffer(content, np.uint8).reshape(-1, archive.label_bytes + PIXELS)
                if len(records) != getattr(archive, f"{part}_size"):
                    raise ValueError(f"{len(records)} {part} records")
                planes = records[:, archive.label_bytes :].reshape(-1, 3, 32, 32)
                arrays[f"{part}_images"] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
                arrays[f"{part}_labels"] = records[:, archive.label_bytes - 1].astype(np.int32)
    except (tarfile.TarError, ValueError, KeyError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{packed} is no {archive.name} archive: {error}") from error
    return arrays


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()
