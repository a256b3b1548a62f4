"""Preparing TFDS sets on first use, without TensorFlow wherever their builders allow it."""

import contextlib
import difflib
import inspect
import io
import logging
import pathlib
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from jaxrobust.data._files import FULL
from jaxrobust.data._tensorflow_files import opened_without_tensorflow
from jaxrobust.reasons import first_line

OURS = ("cifar10", "cifar100", "mnist")


def prepare(name: str, data_dir: pathlib.Path, *, download: bool) -> Any:
    """The TFDS builder of a set that is prepared below `data_dir`, now if not before.

    Raises:
      ValueError: in one line, if there is no such set or it cannot be prepared.
    """
    builder = _builder(name, data_dir)
    with _without_warnings():
        if builder.is_prepared():
            return builder
    if not download:
        raise ValueError(
            f"{name} is not prepared below data_dir {data_dir}, which {_content(data_dir)}"
        )
    encoding = _without_tensorflow(type(builder))
    _check_network(name, encoding, data_dir)
    config = builder.builder_config and builder.builder_config.name
    with _without_warnings():
        new = encoding(data_dir=data_dir, config=config, file_format="array_record")
    try:
        with opened_without_tensorflow(encoding):
            new.download_and_prepare()
    except Exception as error:  # of the network, the archive, the disk, or TensorFlow's absence
        raise ValueError(_advice(name, data_dir, error)) from error
    return _builder(name, data_dir)


def _builder(name: str, data_dir: pathlib.Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        with _without_warnings():
            return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        plain = name.split("/")[0].split(":")[0]
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(plain, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see tfds.list_builders()"
        raise ValueError(
            f"TFDS has no data set {plain!r} and data_dir {data_dir} {_content(data_dir)}; {hint}"
        ) from None
    except Exception as error:  # an unknown configuration or version, or damaged metadata
        raise ValueError(f"cannot open {name} in {data_dir}: {_cause(error)}") from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """TFDS warns of every set that is not prepared yet."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_network(name: str, builder_class: Any, data_dir: pathlib.Path) -> None:
    """TFDS tries for minutes before it gives up on a machine without a network."""
    downloads = data_dir / "downloads"
    urls = builder_class.url_infos or {}
    if getproxies() or not urls or (downloads.is_dir() and any(downloads.rglob("*.*"))):
        return
    host = urlsplit(min(urls)).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise ValueError(
            _advice(name, data_dir, error, f"no network: {host} is not found")
        ) from error


def _without_tensorflow(stock: Any) -> Any:
    """The builder with images encoded here: TFDS encodes arrays with TensorFlow."""
    from etils import epath
    from tensorflow_datasets import features as kinds

    where = epath.Path(inspect.getfile(stock))

    def encoded(builder: Any, examples: Any) -> Any:
        if not isinstance(examples, Iterator):
            return examples  # Beam pipelines and the like are left to TFDS
        images = [
            key
            for key, feature in builder.info.features.items()
            if isinstance(feature, kinds.Image) and feature.np_dtype == np.uint8
        ]
        return (
            (key, {k: _png(v) if k in images else v for k, v in example.items()})
            for key, example in examples
        )

    class Encoding(stock, skip_registration=True):  # type: ignore[call-arg]
        name = stock.name
        # TFDS looks for checksums and metadata beside the class: they are the stock one's.
        code_path = where
        pkg_dir_path = stock.pkg_dir_path or where.parent

        def _generate_examples(self, *args: Any, **kwargs: Any) -> Any:
            return encoded(self, super()._generate_examples(*args, **kwargs))

    return Encoding


def _png(image: Any) -> Any:
    if not isinstance(image, np.ndarray):
        return image
    from PIL import Image

    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _advice(name: str, data_dir: pathlib.Path, error: Exception, cause: str = "") -> str:
    """One line: what went wrong and what to do."""
    cause = cause or _cause(error)
    chain = [error, error.__cause__, error.__context__]
    if "disk space" in cause or any(getattr(e, "errno", None) in FULL for e in chain):
        return f"no room on the disk of {data_dir} for {name}: free some space or choose another"
    if any(isinstance(e, ImportError) and "tensorflow" in str(e).lower() for e in chain):
        return (
            f"{name} is not prepared below {data_dir} and its TFDS builder needs TensorFlow for "
            "that (reading does not): where TensorFlow is installed, run once "
            f"`tfds build {name} --data_dir={data_dir} --file_format=array_record`"
            + (f", or use data.{name}()" if name in OURS else "")
        )
    return (
        f"cannot prepare {name} below data_dir {data_dir}, which {_content(data_dir)}: {cause}"
        + (f"; data.{name}() needs no TFDS" if name in OURS else "")
    )


def _cause(error: BaseException) -> str:
    line = re.sub(r'^Failed to construct dataset.*?}": ', "", first_line(error))
    return line if len(line) > 20 else f"{type(error).__name__}: {line}"


def _content(data_dir: pathlib.Path) -> str:
    """What a folder of data sets has in it."""
    if not data_dir.is_dir():
        return "does not exist"
    found = [*data_dir.glob("*/*/dataset_info.json"), *data_dir.glob("*/*/*/dataset_info.json")]
    names = sorted({path.relative_to(data_dir).parts[0] for path in found})
    return f"holds {', '.join(names[:8])}" if names else "holds no data set"
