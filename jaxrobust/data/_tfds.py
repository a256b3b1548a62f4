"""Any image classification set of TensorFlow Datasets, by name and without TensorFlow."""

import hashlib
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrobust.data._dataset import Dataset
from jaxrobust.data._decode import size_of
from jaxrobust.data._files import default_data_dir, read_npz, write_npz
from jaxrobust.data._sources import Record, Source, in_memory
from jaxrobust.data._streamed import Streamed, streamed
from jaxrobust.data._tfds_prepare import prepare
from jaxrobust.reasons import first_line

CACHE = "jaxrobust_decoded"
# Of how files become arrays: arrays that another version has decoded are not taken from the cache.
DECODING = 2


def tfds(
    name: str,
    *,
    data_dir: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    resize: int | tuple[int, int] | None = None,
    download: bool = True,
    cache: bool = True,
    stream: bool = False,
) -> Dataset | Streamed:
    """An image classification set by its TFDS name, read without TensorFlow.

    A set that is not prepared yet is downloaded and prepared by its TFDS builder on first use.
    That needs TensorFlow only where the builder itself calls it; the error then says what to
    do. The decoded arrays are kept in `<data_dir>/jaxrobust_decoded`, so that later uses do not
    decode again.

    Args:
      name: TFDS name, `name`, `name/config` or `name:version`; also a set that is prepared in
        `data_dir` and unknown to TFDS.
      data_dir: folder of the data sets; default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      train_split: such as `train` or `train[:90%]`.
      test_split: such as `test` or `validation`.
      resize: pixels, or `(height, width)`: images are scaled, with their proportions, to cover
        that size, and cropped to its centre; needed where the images differ in size.
      download: prepare a set that is not there; otherwise that is an error.
      cache: keep the decoded arrays on disk.
      stream: leave the training images encoded on disk and read them when a step needs them; the
        same run in the end, for sets that are larger than memory.

    Returns:
      The data set, in TFDS's order, with its `class_names`; with `stream` a `Streamed`.

    Raises:
      ValueError: in one line, for an unknown set or split, a wrong `data_dir`, a set that cannot
        be prepared, images of several sizes, damaged files or a full disk.

    Example:
      >>> from jaxrobust import data
      >>> mnist = data.tfds("mnist", data_dir="~/tensorflow_datasets")  # doctest: +SKIP
    """
    size = size_of(resize)
    builder = prepare(name, default_data_dir(data_dir), download=download)
    if stream:
        return streamed(*(_split_of(builder, name, s, size) for s in (train_split, test_split)))
    arrays: dict[str, Any] = {}
    for part, split in (("train", train_split), ("test", test_split)):
        source = _split_of(builder, name, split, size)
        path = _cache_path(builder, split, size)
        images, labels = _decoded(source, path) if cache else in_memory(source)
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    arrays |= {"num_classes": source.num_classes, "class_names": source.class_names}
    return Dataset(name=name, **arrays)


def tfds_source(
    name: str,
    *,
    split: str,
    data_dir: str | None = None,
    resize: int | tuple[int, int] | None = None,
    download: bool = True,
) -> Source:
    """One split of a TFDS set as a sequence that decodes on demand, to stream from.

    Args:
      name: TFDS name.
      split: such as `train` or `train[:90%]`.
      data_dir: folder of the data sets; default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      resize: as in `tfds`.
      download: prepare a set that is not there; otherwise that is an error.

    Returns:
      A `Source`.

    Raises:
      ValueError: as `tfds` does.

    Example:
      >>> from jaxrobust import data
      >>> source = data.tfds_source("mnist", split="train")  # doctest: +SKIP
    """
    size = size_of(resize)
    builder = prepare(name, default_data_dir(data_dir), download=download)
    return _split_of(builder, name, split, size)


def _split_of(builder: Any, name: str, split: str, size: tuple[int, int] | None) -> Source:
    # Imported here: TFDS takes half a second and 170 MB of pyarrow.
    from tensorflow_datasets import decode

    image_key, label_key = _keys(builder, name)
    features = builder.info.features
    try:
        stored = builder.as_data_source(split=split, decoders={image_key: decode.SkipDecoding()})
    except NotImplementedError:
        raise ValueError(
            f"{builder.data_dir} is in the format {builder.info.file_format.value}, which only "
            "TensorFlow reads; delete it, or choose another data_dir, to prepare it as array_record"
        ) from None
    except Exception as error:
        if "split" in str(error).lower():
            splits = ", ".join(builder.info.splits)
            raise ValueError(f"{name} has no split {split!r}; it has {splits}") from error
        raise _damaged(builder, error) from error

    def read(indices: Sequence[int]) -> list[Record]:
        try:
            examples = stored.__getitems__(list(indices))
            return [
                Record(example[image_key], int(example[label_key]), f"{name}/{split} example {i}")
                for i, example in zip(indices, examples, strict=True)
            ]
        except Exception as error:  # whatever the reader of the format raises
            raise _damaged(builder, error) from error

    return Source(
        name=name if split in ("train", "test") else f"{name}/{split}",
        num_classes=features[label_key].num_classes,
        class_names=tuple(features[label_key].names or ()),
        size=len(stored),
        read=read,
        channels=features[image_key].shape[-1] or 3,
        resize=size,
    )


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """The features that are image and label."""
    from tensorflow_datasets import features as kinds

    features = builder.info.features
    image, label = builder.info.supervised_keys or ("image", "label")
    known = features.keys() if hasattr(features, "keys") else ()
    if (
        not {image, label} <= set(known)
        or not isinstance(features[image], kinds.Image)
        or not isinstance(features[label], kinds.ClassLabel)
        or features[image].np_dtype != np.uint8
    ):
        raise ValueError(
            f"{name} is no image classification set: its features are {', '.join(known)}"
        )
    return image, label


def _damaged(builder: Any, error: Exception) -> ValueError:
    return ValueError(
        f"{builder.data_dir} is damaged ({first_line(error)}); delete it and prepare it again"
    )


def _cache_path(builder: Any, split: str, size: tuple[int, int] | None) -> pathlib.Path:
    """Where a split's decoded arrays are kept; another path once the prepared files change."""
    folder = pathlib.Path(builder.data_dir)
    files = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.iterdir())]
    mark = hashlib.sha256(repr((DECODING, split, size, files)).encode()).hexdigest()[:16]
    name = builder.info.full_name.replace("/", "-")
    return pathlib.Path(builder.data_dir_root) / CACHE / f"{name}-{split.split('[')[0]}-{mark}.npz"


def _decoded(source: Source, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a source, from the cache if they are in it."""
    if path.exists():
        try:
            arrays = read_npz(path)
            return arrays["images"], arrays["labels"]
        except (ValueError, KeyError):
            path.unlink()  # damaged; decoding again costs seconds
    images, labels = in_memory(source)
    try:
        write_npz(path, {"images": images, "labels": labels})
    except (ValueError, OSError) as error:  # a read-only or full disk only costs time
        warnings.warn(f"the decoded images are not kept: {first_line(error)}", stacklevel=3)
    return images, labels
