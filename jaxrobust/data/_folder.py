"""Images sorted into one folder per class."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxrobust.data._dataset import Dataset
from jaxrobust.data._decode import size_of
from jaxrobust.data._files import expanded
from jaxrobust.data._sources import Record, Source, as_channels, in_memory
from jaxrobust.data._streamed import Streamed, streamed
from jaxrobust.inputs import InputError

TEST_FOLDERS = ("test", "val")
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
PNM = (".ppm", ".pgm", ".pbm", ".pnm")
IMAGES = (".png", *JPEG, ".bmp", ".gif", *PNM, ".tif", ".tiff", ".webp")
NOTES = (".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".log")
LEFT = (".db", ".ini", ".lnk")  # by file managers: Thumbs.db, desktop.ini
# What other programs leave in folders, beside hidden files and folders.
FOREIGN = ("__macosx", "__pycache__", "@eadir", "#recycle", "@recycle", "$recycle.bin", "icon\r")
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
    names, and in numeric order where all names are numbers (0, 1, ..., 10, 11). Hidden files and
    folders, annotations (.txt, .csv, .json, ...) and what file managers leave (Thumbs.db,
    desktop.ini, __MACOSX, @eaDir, ...) are passed over. Tiny-ImageNet is read as it is published,
    with `val/val_annotations.txt`.

    Images become 8-bit: 16-bit grey keeps its scale, `round(v * 255 / 65535)`, and 16-bit colour
    its upper 8 bits. What 8 bits cannot hold (floating point, 32-bit integers) is refused. EXIF
    orientation is applied. Transparent pixels are composited on black, unless `channels` is 4. Of
    an animation the first frame counts.

    Args:
      path: the folder.
      train: folder of the training images in it.
      test: folder of the test images in it; default `test`, or else `val`.
      resize: pixels, or `(height, width)`: images are scaled, with their proportions, to cover
        that size, and cropped to its centre; needed where the images differ in size.
      channels: 3 for colour, 1 for grey, 4 for colour and alpha; images are converted.
      name: what results call the set; default the folder's name.
      stream: leave the training images on disk and read them when a step needs them; the same
        run in the end, for sets that are larger than memory.

    Returns:
      The data set, with the folders' names as `class_names`; with `stream` a `Streamed`.

    Raises:
      ValueError: in one line, if a folder is missing or holds fewer than two classes, a class is
        missing or empty, a file is no image or one that 8 bits cannot hold, or images differ in
        size.

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
    root = expanded(path)
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
            raise InputError(
                f"{root / (test if which == 'test' else train)} lacks the class "
                f"{', '.join(sorted(classes)[:5])} of the other part"
            )
    if stream:
        return streamed(sources["train"], sources["test"])
    arrays: dict[str, Any] = {}
    for part, source in sources.items():
        images, labels = in_memory(source)
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    arrays |= {f: getattr(sources["train"], f) for f in ("name", "num_classes", "class_names")}
    return Dataset(**arrays)


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
      resize: as in `image_folder`.
      channels: 3 for colour, 1 for grey, 4 for colour and alpha; images are converted.
      name: what results call the set; default the folder's name.

    Returns:
      A `Source`, with the folders' names as `class_names`.

    Raises:
      ValueError: in one line, if the folder is missing or holds fewer than two classes, a class is
        empty, or a file is no image.

    Example:
      >>> from jaxrobust import data
      >>> source = data.folder_source("tiny-imagenet-200", resize=64)  # doctest: +SKIP
    """
    size, channels = size_of(resize), as_channels(channels)
    root = expanded(path)
    classes = _classes(root / split)
    files = [(file, label) for label, found in enumerate(classes.values()) for file in found]

    def read(indices: Sequence[int]) -> list[Record]:
        chosen = (files[index] for index in indices)
        return [Record(_bytes(file), label, str(file)) for file, label in chosen]

    return Source(
        name=name or root.resolve().name,
        num_classes=len(classes),
        size=len(files),
        read=read,
        channels=channels,
        resize=size,
        class_names=tuple(classes),
    )


def _classes(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The image files of every class, both sorted.

    Raises:
      InputError: if there is no such folder, fewer than two classes in it, or a class without
        images.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: it must hold one folder of images per class")
    if (folder / TINY_IMAGENET).is_file():
        classes = _annotated(folder)
    else:
        subfolders = [s for s in _entries(folder) if s.is_dir()]
        classes = {sub.name: _images(sub) for sub in subfolders}
    if not classes:
        raise InputError(f"{folder} holds no classes: it must hold one folder of images per class")
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise InputError(f"{folder / empty[0]} holds no images")
    if len(classes) == 1:
        raise InputError(
            f"{folder} holds one class, {next(iter(classes))}: it must hold at least two folders "
            "of images, one per class"
        )
    return {name: classes[name] for name in sorted(classes, key=_order(classes))}


def _order(names: Iterable[str]) -> Callable[[str], tuple]:
    """Key of an order: that of the numbers where all names are numbers, else the alphabet's."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return lambda name: (int(name), name)
    return lambda name: (name,)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """What a folder holds, sorted, without what is hidden or foreign."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    return [e for e in entries if not e.name.startswith(".") and e.name.lower() not in FOREIGN]


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    found = []
    for file in _entries(folder):
        if file.is_dir():
            found += [] if file.is_symlink() else _images(file)  # links could lead in circles
        elif file.suffix.lower() in IMAGES:
            found.append(file)
        elif file.suffix.lower() not in (*NOTES, *LEFT):
            raise InputError(f"{file} is no image: images end in {', '.join(IMAGES)}")
    return found


def _bytes(file: pathlib.Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error


def _annotated(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Tiny-ImageNet's validation images: lines of `file`, tab, `class`, tab, box."""
    classes: dict[str, list[pathlib.Path]] = {}
    for line in sorted(filter(str.strip, (folder / TINY_IMAGENET).read_text().splitlines())):
        file, *names = line.split("\t")
        if not names:
            raise InputError(
                f"lines of {folder / TINY_IMAGENET} must be a file, a tab and a class, got {line!r}"
            )
        classes.setdefault(names[0], []).append(folder / "images" / file)
    return classes
