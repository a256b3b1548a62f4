"""Downloads that continue where they stopped and count only when their checksum is right."""

import hashlib
import http.client
import pathlib
import socket
import time
import urllib.error
import urllib.request

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from jaxrobust.data._files import room_on_disk

CHUNK = 1 << 20
ATTEMPTS = 5
PAUSE = 0.5  # seconds before the second attempt, then doubled


def download(url: str, path: pathlib.Path, *, checksum: str, timeout: float = 60.0) -> None:
    """Fetches a file unless it is there.

    What has arrived is kept as `<path>.part`, also across processes, and continued by the next
    attempt (HTTP Range). `path` itself appears only when it is complete.

    Args:
      url: of the file.
      path: where it goes; a file that is there is checked instead of fetched.
      checksum: of the complete file, `algorithm:hexadecimal`.
      timeout: seconds without an answer after which an attempt counts as failed.

    Raises:
      ValueError: in one line, if the file cannot be had, has the wrong checksum, or the disk is
        full.
    """
    if path.exists():
        if not matches(path, checksum):
            raise ValueError(f"{path} is damaged: it is not {checksum}; delete it and run again")
        return
    part = path.with_name(path.name + ".part")
    with room_on_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, path, timeout)
        if not matches(part, checksum):
            part.unlink()
            raise ValueError(f"{url} has changed or arrived damaged: it is not {checksum}")
        part.replace(path)


def matches(path: pathlib.Path, checksum: str) -> bool:
    """Whether a file has the checksum `algorithm:hexadecimal`."""
    algorithm, wanted = checksum.split(":")
    with path.open("rb") as file:
        # Against damage, not against an adversary: md5 is what is published for CIFAR.
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return found.hexdigest() == wanted


def _fetch(url: str, part: pathlib.Path, path: pathlib.Path, timeout: float) -> None:
    """Attempts until the file is complete; one that gains bytes does not count as failed."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    failures = 0
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(path.name, total=None)
        while True:
            before = _size(part)
            try:
                if _attempt(url, part, bar, task, timeout):
                    return
                reason = "the connection broke off"
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                if isinstance(error, urllib.error.HTTPError):
                    reason, failures = f"HTTP {error.code} {error.reason}", ATTEMPTS
                elif isinstance(getattr(error, "reason", None), socket.gaierror):
                    reason, failures = "no network: the host is not found", ATTEMPTS
            except TimeoutError:
                reason = f"no answer for {timeout:g} s"
            failures = 1 if _size(part) > before and failures < ATTEMPTS else failures + 1
            if failures >= ATTEMPTS:
                raise ValueError(
                    f"cannot download {url}: {reason}; run again to continue, "
                    f"or fetch it by hand and put it at {path}"
                )
            time.sleep(PAUSE * 2**failures)


def _attempt(url: str, part: pathlib.Path, bar: Progress, task: object, timeout: float) -> bool:
    """One request for what is missing; whether the file is complete after it."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        return True  # nothing is missing, or the checksum will tell
    with response:
        continued = response.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if continued else 0  # a server without ranges starts again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar.update(task, completed=have, total=total)  # type: ignore[arg-type]
        with part.open("ab" if continued else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))  # type: ignore[arg-type]
    return total is None or _size(part) >= total


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0
