"""Images sorted into one folder per class."""

import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrobust.data._dataset import Dataset
from jaxrobust.data._sources import MODES, Record, Source, in_memory, size_of
from jaxrobust.data._streamed import Streamed, streamed

TEST_FOLDERS = ("test", "val")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
NOTES = (".txt", ".csv", ".json", ".xml", ".md")  # annotations that sets leave beside images
TINY_IMAGENET = "val_annotations.txt"


def image_folder(
    path: str,
    *,
    train: str = "train",
    test: str | None = None,
    resize: int | tuple[int, int] | None = None,
    channels: int = 3,
    name: str | None = None,
    stream: bool = False,
) -> Dataset | Streamed:
    """Images in `path/train/CLASS/` and `path/test/CLASS/`, in memory or streamed.

    Images may lie deeper in their class's folder. Classes are numbered in the order of their
    names. Hidden files and annotations (.txt, .csv, .json, .xml, .md) are passed over.
    Tiny-ImageNet is read as it is published, with `val/val_annotations.txt`.

    Args:
      path: the folder.
      train: folder of the training images in it.
      test: folder of the test images in it; default `test`, or else `val`.
      resize: pixels, or `(height, width)`; needed where the images differ in size.
      channels: 3 for colour, 1 for grey; images are converted.
      name: what results call the set; default the folder's name.
      stream: leave the training images on disk and read them when a step needs them; the same
        run in the end, for sets that are larger than memory.

    Returns:
      The data set; with `stream` a `Streamed`.

    Raises:
      ValueError: in one line, if a folder is missing or holds no classes, a class is missing or
        empty, a file is no image, or images differ in size.

    Example:
      >>> import pathlib, tempfile
      >>> from PIL import Image
      >>> from jaxrobust import data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
      ...         pathlib.Path(folder, place).mkdir(parents=True)
      ...         Image.new("RGB", (8, 8)).save(pathlib.Path(folder, place, "0.png"))
      ...     data.image_folder(folder).train_images.shape
      (2, 8, 8, 3)
    """
    root = pathlib.Path(path).expanduser()
    if test is None:
        test = next((t for t in TEST_FOLDERS if (root / t).is_dir()), TEST_FOLDERS[0])
    sources = {
        part: folder_source(path, split=folder, resize=resize, channels=channels, name=name)
        for part, folder in (("train", train), ("test", test))
    }
    train_classes, test_classes = (set(_classes(root / folder)) for folder in (train, test))
    for which, classes in (
        ("test", train_classes - test_classes),
        ("train", test_classes - train_classes),
    ):
        if classes:
            raise ValueError(
                f"{root / (test if which == 'test' else train)} lacks the class "
                f"{', '.join(sorted(classes)[:5])} of the other part"
            )
    if stream:
        return streamed(sources["train"], sources["test"])
    arrays: dict[str, Any] = {}
    for part, source in sources.items():
        images, labels = in_memory(source)
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    return Dataset(name=sources["train"].name, num_classes=sources["train"].num_classes, **arrays)


def folder_source(
    path: str,
    *,
    split: str = "train",
    resize: int | tuple[int, int] | None = None,
    channels: int = 3,
    name: str | None = None,
) -> Source:
    """The images of `path/split/CLASS/` as a sequence that decodes on demand, to stream from.

    Args:
      path: the folder.
      split: the folder in it that holds the folders of the classes.
      resize: pixels, or `(height, width)`; needed where the images differ in size.
      channels: 3 for colour, 1 for grey; images are converted.
      name: what results call the set; default the folder's name.

    Returns:
      A `Source`.

    Raises:
      ValueError: in one line, if the folder is missing or holds no classes, a class is empty,
        or a file is no image.

    Example:
      >>> from jaxrobust import data
      >>> source = data.folder_source("tiny-imagenet-200", resize=64)  # doctest: +SKIP
    """
    size = size_of(resize)
    if channels not in MODES:
        raise ValueError(f"channels must be one of {', '.join(map(str, MODES))}, got {channels}")
    root = pathlib.Path(path).expanduser()
    classes = _classes(root / split)
    files = [(file, label) for label, found in enumerate(classes.values()) for file in found]

    def read(indices: Sequence[int]) -> list[Record]:
        chosen = (files[index] for index in indices)
        return [Record(file.read_bytes(), label, str(file)) for file, label in chosen]

    return Source(
        name=name or root.resolve().name,
        num_classes=len(classes),
        size=len(files),
        read=read,
        channels=channels,
        resize=size,
    )


def _classes(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The image files of every class, sorted.

    Raises:
      ValueError: if there is no such folder, no class in it, or a class without images.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: it must hold one folder of images per class")
    if (folder / TINY_IMAGENET).is_file():
        return _annotated(folder)
    classes = {
        sub.name: _images(sub)
        for sub in sorted(folder.iterdir())
        if sub.is_dir() and not sub.name.startswith(".")
    }
    if not classes:
        raise ValueError(f"{folder} holds no classes: it must hold one folder of images per class")
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise ValueError(f"{folder / empty[0]} holds no images")
    return classes


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_dir() or file.name.startswith(".") or file.suffix.lower() in NOTES:
            continue
        if file.suffix.lower() not in IMAGES:
            raise ValueError(f"{file} is no image: images end in {', '.join(IMAGES)}")
        found.append(file)
    return found


def _annotated(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Tiny-ImageNet's validation images: lines of `file`, tab, `class`, tab, box."""
    classes: dict[str, list[pathlib.Path]] = {}
    for line in sorted((folder / TINY_IMAGENET).read_text().splitlines()):
        file, name = line.split("\t")[:2]
        classes.setdefault(name, []).append(folder / "images" / file)
    return dict(sorted(classes.items()))
