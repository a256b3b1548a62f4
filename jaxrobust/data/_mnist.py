"""MNIST from its IDX files, in the original order."""

import gzip
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np

from jaxrobust.data._class_names import DIGITS
from jaxrobust.data._dataset import Dataset
from jaxrobust.data._download import download
from jaxrobust.data._files import default_data_dir, read_npz, write_npz

URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FILES = {
    "train_images": (
        "train-images-idx3-ubyte.gz",
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train_labels": (
        "train-labels-idx1-ubyte.gz",
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "test_images": (
        "t10k-images-idx3-ubyte.gz",
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "test_labels": (
        "t10k-labels-idx1-ubyte.gz",
        "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}


def mnist(*, data_dir: str | None = None, classes: Sequence[int] | None = None) -> Dataset:
    """MNIST from its IDX files: 60,000 / 10,000 grey images of 28 x 28, 10 classes.

    The first use downloads four files (12 MB), checks them and writes `<data_dir>/mnist.npz`,
    which later uses read. Without a network put the files into `<data_dir>/downloads` first. The
    order is the original one (`tfds("mnist")` has TFDS's shuffled order).

    Args:
      data_dir: folder of the data sets; default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      classes: the classes to keep, as in `Dataset.select`; default all.

    Returns:
      The data set.

    Raises:
      ValueError: in one line, if a file cannot be had or is damaged, or the disk is full.

    Example:
      >>> from jaxrobust import data
      >>> data.mnist().train_images.shape  # doctest: +SKIP
      (60000, 28, 28, 1)

    References:
      LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
    """
    dataset = prepared(default_data_dir(data_dir), url=URL, files=FILES)
    return dataset if classes is None else dataset.select(classes)


def prepared(data_dir: pathlib.Path, *, url: str, files: dict[str, tuple[str, str]]) -> Dataset:
    """The data set of four IDX files, `{array: (file, checksum)}`; converted on first use.

    Raises:
      ValueError: in one line, for whatever goes wrong.
    """
    path = data_dir / "mnist.npz"
    if not path.exists():
        arrays = {}
        for name, (file, checksum) in files.items():
            packed = data_dir / "downloads" / file
            download(url + file, packed, checksum=checksum)
            arrays[name] = read_idx(packed)
        write_npz(path, arrays)
    try:
        arrays = read_npz(path)
        return Dataset(
            name="mnist",
            train_images=arrays["train_images"][..., None],
            train_labels=arrays["train_labels"],
            test_images=arrays["test_images"][..., None],
            test_labels=arrays["test_labels"],
            num_classes=10,
            class_names=DIGITS,
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{error}; delete {path} and run again") from error


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The uint8 array of a gzipped IDX file.

    Raises:
      ValueError: if it is none.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
        dimensions = content[3]
        if content[:3] != b"\0\0\x08":  # 8: unsigned bytes
            raise ValueError("it does not start as one")
        shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(int)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, zlib.error, IndexError, ValueError) as error:
        raise ValueError(f"{path} is no IDX file of bytes: {error}") from error
