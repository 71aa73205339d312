"""Serve a small hub on the loopback, for the real clients of datasets, huggingface_hub and transformers.

    with serve({"datasets/me/tiny": Repo({"data/train.parquet": b"..."})}) as hub:
        environment = hub.environment(tmp_path)   # HF_ENDPOINT and fresh caches; set before the clients are imported

A `Fault` spoils `times` of the answers to requests whose path contains `match`, or all if `times` is negative.
`hub.log` lists every request.
"""

import contextlib
import fnmatch
import hashlib
import http.server
import json
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(r"/api/(?P<kind>datasets|models)/(?P<repo>[^/]+/[^/]+)(?P<rest>/.*)?")
RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Repo:
    """Hold one repository: the files of one commit, and the names of that commit."""

    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    license: str = "mit"
    gated: bool = False


@dataclass
class Fault:
    """Spoil answers a number of times: `drop` cuts the body after so many bytes, `status` replaces the answer."""

    match: str
    drop: int | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1


@dataclass
class Hub:
    """Represent the running server to tests."""

    endpoint: str
    repos: dict[str, Repo]
    faults: list[Fault]
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range header) of every request."""

    def environment(self, home: pathlib.Path) -> dict[str, str]:
        """Return what a client's process needs: this endpoint, empty caches under `home`, and no token."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def ranges(self, match: str) -> list[str]:
        """Return the Range headers of requests for paths that contain `match`."""
        return [asked for _, path, asked in self.log if match in path and asked]

    def fault(self, path: str) -> Fault | None:
        """Return the fault that this request meets, and count it down."""
        for each in self.faults:
            if each.times and (each.match in path or fnmatch.fnmatchcase(path, each.match)):
                each.times -= 1
                return each
        return None


class Handler(http.server.BaseHTTPRequestHandler):
    """Answer the requests of one connection."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.log.append((self.command, path, self.headers.get("Range")))
        fault = self.hub.fault(f"{self.command} {path}")
        if fault and fault.status:
            self.reply(fault.status, b"{}", dict(fault.headers))
        elif found := API.fullmatch(path):
            self.api(found["kind"], found["repo"], found["rest"] or "", body)
        elif found := RESOLVE.fullmatch(urllib.parse.urlsplit(self.path).path):
            self.resolve(found, fault.drop if fault else None)
        else:
            self.reply(404, b"{}")

    def reply(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, drop: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if drop is None else body[:drop])
        if drop is not None:
            self.close_connection = True

    def json(self, value: Any) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def repo(self, name: str, revision: str) -> Repo | None:
        """Return the repository at a revision; if there is none, answer the request and return None."""
        repo = self.hub.repos.get(name)
        if repo is None:
            self.reply(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif urllib.parse.unquote(revision) not in (repo.commit, *repo.revisions):
            self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo

    def api(self, kind: str, name: str, rest: str, body: bytes) -> None:
        verb, _, tail = rest.strip("/").partition("/")
        revision = "main"
        if verb in ("revision", "tree", "paths-info"):
            known = [f"refs/{'/'.join(tail.split('/')[1:3])}"] if tail.startswith("refs/") else []
            revision = known[0] if known else tail.partition("/")[0]
        repo = self.repo(f"{kind}/{name}", revision)
        if repo is None:
            return
        folder = tail.removeprefix(revision).strip("/")
        if verb == "tree":
            self.tree(repo, folder)
        elif verb == "paths-info":
            asked = urllib.parse.parse_qs(body.decode())["paths"] if b"paths=" in body else json.loads(body)["paths"]
            self.json([entry(path, repo.files[path]) for path in asked if path in repo.files])
        else:
            info = {"id": name, "sha": repo.commit, "private": False, "gated": "auto" if repo.gated else False}
            info |= {"disabled": False, "downloads": 0, "likes": 0, "tags": [f"license:{repo.license}"]}
            self.json(
                {**info, "cardData": {"license": repo.license}, "siblings": [{"rfilename": p} for p in repo.files]}
            )

    def tree(self, repo: Repo, folder: str) -> None:
        inside = {path: data for path, data in repo.files.items() if not folder or path.startswith(folder + "/")}
        if folder and not inside:
            self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        folders = {"/".join(path.split("/")[:depth]) for path in inside for depth in range(1, path.count("/") + 1)}
        if "recursive=true" not in self.path.lower():
            depth = folder.count("/") + 1 if folder else 0
            inside = {path: data for path, data in inside.items() if path.count("/") == depth}
            folders = {path for path in folders if path.count("/") == depth}
        else:
            folders = {path for path in folders if path.startswith(folder)}
        listed = [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders - {folder})
        ]
        self.json(listed + [entry(path, data) for path, data in inside.items()])

    def resolve(self, found: re.Match[str], drop: int | None) -> None:
        repo = self.repo((found["kind"] or "models/") + found["repo"], found["revision"])
        if repo is None:
            return
        if repo.gated:
            self.reply(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            return
        data = repo.files.get(urllib.parse.unquote(found["file"]))
        headers = {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if data is None:
            self.reply(404, b"{}", {**headers, "X-Error-Code": "EntryNotFound"})
            return
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self.reply(200, data, headers, drop)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if start >= len(data):
            self.reply(416, b"", headers)
            return
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self.reply(206, data[start : end + 1], headers, drop)


def entry(path: str, data: bytes) -> dict[str, Any]:
    """Describe a file as the tree and paths-info calls list it."""
    oid = hashlib.sha1(data).hexdigest()
    return {"type": "file", "path": path, "size": len(data), "oid": oid}


class Server(http.server.ThreadingHTTPServer):
    """Serve each connection in a thread; ignore clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextlib.contextmanager
def serve(repos: dict[str, Repo], *faults: Fault) -> Iterator[Hub]:
    """Serve a hub with `repos`, by names such as 'datasets/me/tiny' and 'models/me/tiny', until the block ends."""
    hub = Hub("", repos, list(faults))
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
