"""Stand in for the API server of a Kubernetes cluster on the loopback address: keep what is sent, and run nothing.

It answers what Snakemake's plugin asks for: secrets and jobs are made as sent, and a job stays active for ever.
"""

import contextlib
import http.server
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import yaml


class Server:
    """The manifests that were sent, by kind, and the file by which clients find the server."""

    def __init__(self, url: str, folder: pathlib.Path) -> None:
        self.manifests: dict[str, list[dict[str, Any]]] = {"secrets": [], "jobs": []}
        self.deleted: list[str] = []
        self.config = folder / "kubeconfig.yaml"
        cluster, user = {"name": "here", "cluster": {"server": url}}, {"name": "me", "user": {}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
        content = {"apiVersion": "v1", "kind": "Config", "current-context": "here"}
        self.config.write_text(yaml.dump(content | {"clusters": [cluster], "users": [user], "contexts": [context]}))


def handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    """Return what answers a request."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def answer(self, content: dict[str, Any], status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def sent(self) -> Any:
            return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

        def do_POST(self) -> None:
            kind, manifest = self.path.split("?")[0].rpartition("/")[2], self.sent()
            server.manifests[kind].append(manifest)
            self.answer(manifest, 201)

        def do_GET(self) -> None:
            if self.path.split("?")[0].endswith("/pods"):
                self.answer({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})
                return
            name = self.path.split("?")[0].split("/jobs/")[-1].split("/")[0]
            job = next(job for job in server.manifests["jobs"] if job["metadata"]["name"] == name)
            self.answer({**job, "status": {"active": 1}})

        def do_DELETE(self) -> None:
            self.sent()
            server.deleted.append(self.path.split("?")[0].rpartition("/")[2])
            self.answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

        def log_message(self, *_: object) -> None:
            pass

    return Answers


@contextlib.contextmanager
def serve(folder: pathlib.Path) -> Iterator[Server]:
    """Serve until the block ends."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as listening:
        server = Server(f"http://127.0.0.1:{listening.server_port}", folder)
        listening.RequestHandlerClass = handler(server)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
