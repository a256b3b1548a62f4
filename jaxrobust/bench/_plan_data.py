"""What a compiled step must know of the data, without reading it."""

import pathlib
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxrobust.data import Streamed
from jaxrobust.experiment import Experiment
from jaxrobust.storage import run_folder

# Sets whose sizes are known by their names; the others are loaded.
KNOWN = {
    "cifar10": (50_000, (32, 32, 3), 10),
    "cifar100": (50_000, (32, 32, 3), 100),
    "mnist": (60_000, (28, 28, 1), 10),
}
GENERATED_SIZE = 1_000_000  # images of the published DDPM and EDM sets


class DataShape(NamedTuple):
    """A training set by its numbers.

    Attributes:
      train_size: labelled training examples, without those held out for validation.
      generated_size: generated images; 0 without.
      image_shape: `(h, w, c)`.
      num_classes: number of classes.
      max_value: the uint8 value that means 1.0.
      assumed: sentences on what was assumed.
      streamed: a step gets its batch alone, not the whole set.
    """

    train_size: int
    generated_size: int
    image_shape: tuple[int, ...]
    num_classes: int
    max_value: int
    assumed: tuple[str, ...]
    streamed: bool = False


def data_shape(experiment: Experiment, *, generated_size: int | None = None) -> DataShape:
    """The numbers of an experiment's training set, from its name where that is enough.

    Args:
      experiment: whose data; read only if the set is not a known one, or used in part.
      generated_size: number of generated images; default that of the file, or 1,000,000 where
        the file is not there.

    Returns:
      `DataShape`.

    Raises:
      ValueError: if the data must be read and cannot be.
    """
    spec, assumed, streamed = experiment.data, [], False
    if spec.target in KNOWN and not set(spec.kwargs) - {"data_dir"}:
        size, image_shape, num_classes = KNOWN[spec.target]
        max_value = 255
    else:
        dataset = experiment.build("data")
        size, image_shape = dataset.train_size, dataset.image_shape
        streamed = isinstance(dataset, Streamed)
        num_classes, max_value = dataset.num_classes, dataset.max_value
    extra = 0
    if experiment.generated is not None:
        path = pathlib.Path(experiment.generated.kwargs.get("path", "")).expanduser()
        if generated_size is not None:
            extra = generated_size
        elif experiment.generated.target != "generated":
            extra = len(experiment.build("generated").labels)
        elif path.is_file():
            extra = _labels_in(path)
        else:
            extra = GENERATED_SIZE
            assumed.append(f"{extra:,} generated images: {path} is not there")
    if helper_is_missing(experiment):
        assumed.append(f"a helper of the same network: {_source(experiment)} is not there")
    return DataShape(
        size - experiment.validation.size,
        extra,
        tuple(image_shape),
        num_classes,
        max_value,
        tuple(assumed),
        streamed,
    )


def helper_is_missing(experiment: Experiment) -> bool:
    """Whether an experiment has a helper whose run or file of weights is not there."""
    return experiment.helper is not None and not run_folder(_source(experiment)).exists()


def _source(experiment: Experiment) -> str:
    helper = experiment.helper
    return str(helper["weights"] if isinstance(helper, Mapping) else helper)


def _labels_in(path: pathlib.Path) -> int:
    """The number of labels in an npz, from the header of the array."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n in ("label.npy", "labels.npy"))
            with archive.open(name) as file:
                version = np.lib.format.read_magic(file)
                read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                return read(file)[0][0]
    except (zipfile.BadZipFile, StopIteration, ValueError, OSError) as error:
        raise ValueError(f"{path} is no npz with labels: {error}") from error
