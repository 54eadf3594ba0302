"""As much of Kubernetes as kubectl asks to apply manifests: it tells which kinds there are, and keeps what comes."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

_KINDS: Final = {
    "v1": ("Secret", "ConfigMap", "PersistentVolumeClaim", "Service"),
    "apps/v1": ("Deployment",),
    "monitoring.coreos.com/v1": ("ServiceMonitor", "PrometheusRule"),
}


class KubeApi(ThreadingHTTPServer):
    """Serves on loopback; ``applied`` are the objects that were made, each with its namespace."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.applied: list[dict[str, Any]] = []

    def write_kubeconfig(self, file: Path) -> Path:
        """What leads kubectl here."""
        cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server_address[1]}"}}
        context = {"name": "here", "context": {"cluster": "here"}}
        file.write_text(json.dumps({"clusters": [cluster], "contexts": [context], "current-context": "here"}))
        return file


class _Handler(BaseHTTPRequestHandler):
    server: KubeApi

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/openapi/v2":
            # An empty message: the schemas of Kubernetes are asked elsewhere.
            self._answer(200, b"", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        elif (found := _discovery(path)) is not None:
            self._answer(200, json.dumps(found).encode())
        else:
            self._answer(
                404, json.dumps({"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}).encode()
            )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.applied.append(json.loads(body))
        self._answer(201, body)

    def _answer(self, status: int, body: bytes, media_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _discovery(path: str) -> dict[str, Any] | None:
    """Groups, versions and kinds; ``None`` where something else is asked for."""
    groups = {version.partition("/")[0]: version for version in _KINDS if "/" in version}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        told = []
        for group, version in groups.items():
            preferred = {"groupVersion": version, "version": "v1"}
            told.append({"name": group, "versions": [preferred], "preferredVersion": preferred})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": told}
    kinds = _KINDS.get(path.removeprefix("/apis/").removeprefix("/api/"))
    if kinds is None:
        return None
    verbs = ["create", "get", "list", "patch"]
    resources = [{"name": f"{kind.lower()}s", "namespaced": True, "kind": kind, "verbs": verbs} for kind in kinds]
    version = path.removeprefix("/apis/").removeprefix("/api/")
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
