"""A bucket in memory behind the JSON interface of Cloud Storage, as far as runs need it.

`python -m tests.training.cloud_storage PORT` serves until it is killed.
"""

import email
import itertools
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

OBJECTS: dict[str, tuple[bytes, int]] = {}  # by bucket/name: content and generation
SESSIONS: dict[str, tuple[str, bytes]] = {}  # resumable uploads: object and what is there
GENERATIONS, LOCK = itertools.count(10**15), threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One request at a time sees the bucket."""

    protocol_version = "HTTP/1.1"

    def handle_any(self):
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with LOCK:
            self.route(url.path, body)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = handle_any

    def log_message(self, *args):
        pass

    def answer(self, status=200, content=b"", **headers):
        if isinstance(content, dict):
            content, headers = json.dumps(content).encode(), {"Content-Type": "application/json"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def route(self, path, body):
        path = re.sub(r"^/(upload/|download/)?storage/v1", "", path)
        if path.startswith("/session"):
            return self.resumed(path, body)
        if path.startswith("/batch"):
            return self.batch(body)
        if match := re.fullmatch(r"/b/([^/]+)/o", path):
            return self.upload(match[1], body) if self.command == "POST" else self.list(match[1])
        if match := re.fullmatch(r"/b/([^/]+)/o/(.+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/(.+)", path):
            source, target = key(match[1], match[2]), key(match[3], match[4])
            if source not in OBJECTS:
                return self.answer(404, {"error": {"code": 404, "message": "not found"}})
            return self.answer(content={"done": True, "resource": put(target, OBJECTS[source][0])})
        if match := re.fullmatch(r"/b/([^/]+)/o/(.+)/moveTo/o/(.+)", path):
            content, _ = OBJECTS.pop(key(match[1], match[2]))
            return self.answer(content=put(key(match[1], match[3]), content))
        if match := re.fullmatch(r"/b/([^/]+)/o/(.+)", path):
            return self.one(key(match[1], match[2]))
        if match := re.fullmatch(r"/b/([^/]+)(/storageLayout)?", path):
            return self.answer(content={"name": match[1], "kind": "storage#bucket"})
        return self.answer(501, {"error": {"code": 501, "message": self.path}})

    def refused(self, name):
        """Whether a condition on the generation does not hold."""
        generation = OBJECTS[name][1] if name in OBJECTS else 0
        wanted = self.query.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != generation:
            self.answer(412, {"error": {"code": 412, "message": "precondition"}})
            return True
        unwanted = self.query.get("ifGenerationNotMatch")
        if unwanted is not None and int(unwanted) == generation:
            self.answer(304)
            return True
        return False

    def one(self, name):
        if name not in OBJECTS:
            return self.answer(404, {"error": {"code": 404, "message": f"no object {name}"}})
        if self.refused(name):
            return None
        content, generation = OBJECTS[name]
        if self.command == "DELETE":
            del OBJECTS[name]
            return self.answer(204)
        if self.query.get("alt") != "media":
            return self.answer(content=meta(name))
        headers = {"x_goog_generation": str(generation), "Content_Type": "application/octet-stream"}
        if not (found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))):
            return self.answer(content=content, **headers)
        first, last = found.groups()
        start = int(first) if first else max(len(content) - int(last), 0)
        stop = int(last) + 1 if first and last else len(content)
        if start >= len(content):
            return self.answer(416, Content_Range=f"bytes */{len(content)}")
        stop = min(stop, len(content))
        headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return self.answer(206, content[start:stop], **headers)

    def upload(self, bucket, body):
        if self.query.get("uploadType") == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            about, content = email.message_from_bytes(head + body).get_payload()
            name = json.loads(about.get_payload())["name"]
            body = content.get_payload(decode=True)
        elif self.query.get("uploadType") == "media":
            name = self.query["name"]
        else:  # resumable
            session = f"/session/{next(GENERATIONS)}"
            name = self.query.get("name") or json.loads(body)["name"]
            SESSIONS[session] = (f"{bucket}/{name}", b"")
            return self.answer(Location=f"http://{self.headers['Host']}{session}")
        name = f"{bucket}/{name}"
        return None if self.refused(name) else self.answer(content=put(name, body))

    def resumed(self, session, body):
        """Another part of a resumable upload; the last one says how long the whole is."""
        name, before = SESSIONS[session]
        SESSIONS[session] = name, before + body
        if self.headers["Content-Range"].endswith("/*"):
            return self.answer(308, Range=f"bytes=0-{len(before + body) - 1}")
        return self.answer(content=put(name, before + body))

    def list(self, bucket):
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        start, end = self.query.get("startOffset", ""), self.query.get("endOffset", "\U0010ffff")
        items, prefixes = [], set()
        for full in sorted(OBJECTS):
            name = full.removeprefix(f"{bucket}/")
            if not name.startswith(prefix) or not start <= name < end:
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(meta(full))
        limit = int(self.query.get("maxResults", 10**6))
        self.answer(content={"items": items[:limit], "prefixes": sorted(prefixes)})

    def batch(self, body):
        """Deletions that are sent together."""
        parts = []
        for found in re.finditer(rb"DELETE /storage/v1/b/([^/]+)/o/(\S+)", body):
            there = OBJECTS.pop(key(found[1].decode(), found[2].decode()), None)
            status = "204 No Content" if there else "404 Not Found"
            parts.append(f"--x\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\n\r\n")
        content = "".join([*parts, "--x--\r\n"]).encode()
        self.answer(content=content, Content_Type="multipart/mixed; boundary=x")


def key(bucket, name):
    return f"{bucket}/{unquote(name)}"


def put(name, content):
    OBJECTS[name] = content, next(GENERATIONS)
    return meta(name)


def meta(name):
    bucket, _, rest = name.partition("/")
    content, generation = OBJECTS[name]
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": rest,
        "size": str(len(content)),
        "generation": str(generation),
        "metageneration": "1",
        "updated": "2026-01-01T00:00:00.000Z",
        "timeCreated": "2026-01-01T00:00:00.000Z",
    }


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
