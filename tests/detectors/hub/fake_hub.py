"""A hub on this machine: its addresses and answers, for the real client. It can spoil, cut short and mislead."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote

SHA = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".parquet", ".safetensors", ".pth", ".bin")


class Hub(ThreadingHTTPServer):
    """Serves one repository: revision, tree, and the files themselves.

    Attributes:
        files: by path.
        fetched: paths in the order they were sent, each with the first byte asked for where that is not 0.
        spoiled: path of a file that is sent with its bytes reversed.
        cut: path to bytes: no answer carries more of that file, as where a line breaks.
        ignores_ranges: answers a request for the rest of a file with all of it, as some caches do.
    """

    daemon_threads = True

    def __init__(self, name: str, files: dict[str, bytes], kind: Literal["datasets", "models"] = "datasets") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.kind = name, kind
        self.files = files
        self.fetched: list[str] = []
        self.spoiled = ""
        self.cut: dict[str, int] = {}
        self.ignores_ranges = False

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def tree(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for path, data in self.files.items():
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            row: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": blob}
            if path.endswith(LARGE):
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 120}
            rows.append(row)
        return rows


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub = self.server
        path = unquote(self.path.partition("?")[0])
        api = f"/api/{hub.kind}/{hub.name}"
        resolve = f"/{'datasets/' if hub.kind == 'datasets' else ''}{hub.name}/resolve/{SHA}/"
        if path in (f"{api}/revision/main", f"{api}/revision/{SHA}", api):
            self._answer(json.dumps({"id": hub.name, "sha": SHA}).encode(), "application/json")
        elif path == f"{api}/tree/{SHA}":
            self._answer(json.dumps(hub.tree()).encode(), "application/json")
        elif path.startswith(resolve) and path.removeprefix(resolve) in hub.files:
            self._file(path.removeprefix(resolve))
        else:
            self._answer(b"not found", "text/plain", status=404)

    do_HEAD = do_GET

    def _file(self, name: str) -> None:
        hub = self.server
        data = hub.files[name]
        whole, begin = len(data), 0
        if self.command == "GET":
            asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
            begin = 0 if hub.ignores_ranges else int(asked)
            hub.fetched.append(f"{name} from {begin}" if begin else name)
            if name == hub.spoiled:
                data = bytes(reversed(data))
            data = data[begin : begin + hub.cut.get(name, whole)]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": SHA}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{whole - 1}/{whole}"
        self._answer(data, "application/octet-stream", status=206 if begin else 200, headers=headers)

    def _answer(self, data: bytes, kind: str, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""
