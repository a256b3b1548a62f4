"""Our own preparation of CIFAR and MNIST, from a server in this process."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import pathlib
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest

from jaxrobust.data import _cifar, _download, _mnist


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, and keeps a record of what was asked.

    `cut` bytes after the start of an answer the connection breaks off, `breaks` times.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.ranges, self.breaks, self.cut = {}, [], True, 0, 1000

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        content = self.server.files.get(self.path.lstrip("/"))
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if content is None:
            self.send_error(404)
            return
        start = (
            int(wanted.removeprefix("bytes=").removesuffix("-"))
            if wanted and self.server.ranges
            else 0
        )
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            content = content[: start + self.server.cut]
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(_download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


CONTENT = np.random.default_rng(1).bytes(5000)


def test_a_download_that_breaks_off_is_continued(server, tmp_path):
    server.files["a"], server.breaks = CONTENT, 3
    _download.download(server.url + "a", tmp_path / "a", checksum=md5(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_arrived_is_kept_for_the_next_process(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "ATTEMPTS", 1)
    server.files["a"], server.breaks = CONTENT, 1
    with pytest.raises(
        ValueError, match="the connection broke off; run again to continue"
    ) as caught:
        _download.download(server.url + "a", tmp_path / "a", checksum=md5(CONTENT))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "a.part").read_bytes() == CONTENT[:1000]
    _download.download(server.url + "a", tmp_path / "a", checksum=md5(CONTENT))
    assert server.asked == [None, "bytes=1000-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.files["a"], server.ranges = CONTENT, False
    (tmp_path / "a.part").write_bytes(b"x" * 700)
    _download.download(server.url + "a", tmp_path / "a", checksum=md5(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_part_that_was_complete_is_taken(server, tmp_path):
    server.files["a"] = CONTENT
    (tmp_path / "a.part").write_bytes(CONTENT)
    _download.download(server.url + "a", tmp_path / "a", checksum=md5(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_endless_failure_ends(server, tmp_path):
    server.files["a"], server.breaks, server.cut = CONTENT, 1000, 0
    with pytest.raises(ValueError, match="put it at"):
        _download.download(server.url + "a", tmp_path / "a", checksum=md5(CONTENT))
    assert len(server.asked) == _download.ATTEMPTS


def test_wrong_content_is_refused(server, tmp_path):
    server.files["a"] = CONTENT[:-1] + b"?"
    with pytest.raises(ValueError, match=r"has changed or arrived damaged: it is not md5:"):
        _download.download(server.url + "a", tmp_path / "a", checksum=md5(CONTENT))
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").write_bytes(b"by hand, but wrong")
    with pytest.raises(ValueError, match=r"a is damaged: .*delete it and run again"):
        _download.download(server.url + "a", tmp_path / "a", checksum=md5(CONTENT))


def test_what_is_not_there_is_asked_for_once(server, tmp_path):
    with pytest.raises(ValueError, match=r"cannot download http://.*/nothing: HTTP 404"):
        _download.download(server.url + "nothing", tmp_path / "nothing", checksum=md5(b""))
    assert server.asked == [None]


# ---- CIFAR -------------------------------------------------------------------------------------
def packed(
    archive: _cifar.Archive, sizes: dict[str, int], omit: str = ""
) -> tuple[bytes, dict[str, np.ndarray]]:
    """A tar.gz of the archive's layout with random records, and the records by part."""
    rng, records, buffer = np.random.default_rng(0), {}, io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for part in ("train", "test"):
            files, width = getattr(archive, f"{part}_files"), archive.label_bytes + _cifar.PIXELS
            records[part] = rng.integers(0, 256, (sizes[part], width)).astype(np.uint8)
            records[part][:, : archive.label_bytes] = rng.integers(
                0, len(archive.class_names), (sizes[part], archive.label_bytes)
            )
            for name, share in zip(files, np.array_split(records[part], len(files)), strict=True):
                if name != omit:
                    member = tarfile.TarInfo(f"{archive.folder}/{name}")
                    member.size = share.nbytes
                    tar.addfile(member, io.BytesIO(share.tobytes()))
    return buffer.getvalue(), records


def tiny(
    server: Server, stock: _cifar.Archive, **options
) -> tuple[_cifar.Archive, dict[str, np.ndarray]]:
    """The stock archive with 10 + 4 records, at the server."""
    content, records = packed(stock, {"train": 10, "test": 4}, **options)
    server.files["tiny.tar.gz"] = content
    return replace(
        stock, url=server.url + "tiny.tar.gz", checksum=md5(content), train_size=10, test_size=4
    ), records


@pytest.mark.parametrize("stock", [_cifar.CIFAR10, _cifar.CIFAR100], ids=lambda a: a.name)
def test_cifar_is_prepared_once_in_the_original_order(server, tmp_path, stock):
    archive, records = tiny(server, stock)
    for _ in range(2):
        dataset = _cifar.prepared(archive, tmp_path)
        for part in ("train", "test"):
            images, labels = getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels")
            for image, label, record in zip(images, labels, records[part], strict=True):
                assert label == record[stock.label_bytes - 1]
                for channel in range(3):  # red plane, green plane, blue plane
                    start = stock.label_bytes + 1024 * channel
                    np.testing.assert_array_equal(
                        image[..., channel].ravel(), record[start : start + 1024]
                    )
        assert dataset.num_classes == {"cifar10": 10, "cifar100": 100}[stock.name]
        assert dataset.class_names == stock.class_names
    assert len(server.asked) == 1


def test_an_archive_put_there_by_hand_is_used(server, tmp_path):
    archive, _ = tiny(server, _cifar.CIFAR10)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "tiny.tar.gz").write_bytes(server.files.pop("tiny.tar.gz"))
    assert len(_cifar.prepared(archive, tmp_path).train_labels) == 10
    assert not server.asked


def test_an_archive_that_lacks_a_file_or_records(server, tmp_path):
    archive, _ = tiny(server, _cifar.CIFAR10, omit="test_batch.bin")
    with pytest.raises(ValueError, match=r"tiny.tar.gz is no cifar10 archive: .*test_batch.bin"):
        _cifar.prepared(archive, tmp_path / "a")
    archive, _ = tiny(server, _cifar.CIFAR10)
    with pytest.raises(ValueError, match="is no cifar10 archive: 10 train records"):
        _cifar.prepared(replace(archive, train_size=11), tmp_path / "b")
    assert not (tmp_path / "a" / "cifar10.npz").exists()


def test_a_damaged_npz_is_named(server, tmp_path):
    archive, _ = tiny(server, _cifar.CIFAR10)
    _cifar.prepared(archive, tmp_path)
    path = tmp_path / "cifar10.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"cifar10.npz is damaged.*delete it and run again"
    ) as caught:
        _cifar.prepared(archive, tmp_path)
    assert "\n" not in str(caught.value)
    path.unlink()
    _cifar.prepared(archive, tmp_path)
    with pytest.raises(ValueError, match=r"cifar10.npz holds .* not .*; delete it and run again"):
        _cifar.prepared(replace(archive, test_size=5), tmp_path)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_full_disk_or_an_interrupt_while_writing_leaves_nothing_complete(
    server, tmp_path, monkeypatch, error
):
    archive, _ = tiny(server, _cifar.CIFAR10)

    def half(file, **arrays):
        file.write(b"PK half of an archive")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        with pytest.raises((ValueError, KeyboardInterrupt)) as caught:
            _cifar.prepared(archive, tmp_path)
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"no room on the disk of {tmp_path}: free some space")
    assert [p.name for p in tmp_path.iterdir()] == ["downloads"]
    assert len(_cifar.prepared(archive, tmp_path).train_labels) == 10


def test_a_full_disk_while_downloading(server, tmp_path, monkeypatch):
    archive, _ = tiny(server, _cifar.CIFAR10)

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "open", full)
    with pytest.raises(ValueError, match="no room on the disk of"):
        _cifar.prepared(archive, tmp_path)


# ---- MNIST -------------------------------------------------------------------------------------
def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes())


@pytest.fixture
def digits(server):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, size in (("train", 6), ("test", 3)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (size, 28, 28)).astype(np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 10, size).astype(np.uint8)
    for name, array in arrays.items():
        server.files[name] = idx(array)
    return arrays, {name: (name, md5(server.files[name])) for name in arrays}


def test_mnist_is_prepared_once_in_the_original_order(server, tmp_path, digits):
    arrays, files = digits
    for _ in range(2):
        dataset = _mnist.prepared(tmp_path, url=server.url, files=files)
        for name, array in arrays.items():
            np.testing.assert_array_equal(getattr(dataset, name).reshape(array.shape), array)
    assert len(server.asked) == 4
    assert dataset.image_shape == (28, 28, 1)
    assert dataset.class_names == tuple("0123456789")


def test_what_is_no_idx_file(tmp_path, server, digits):
    _, files = digits
    server.files["test_labels"] = gzip.compress(b"something else")
    files["test_labels"] = "test_labels", md5(server.files["test_labels"])
    with pytest.raises(ValueError, match="test_labels is no IDX file of bytes: "):
        _mnist.prepared(tmp_path, url=server.url, files=files)
    assert not (tmp_path / "mnist.npz").exists()
