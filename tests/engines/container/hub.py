"""A model hub in one file of the standard library, for huggingface_hub: `hub.py PORT`.

It holds the three repositories that the engine's image loads, tiny, at the commits that
deploy/vllm.env names and, on `main`, in the layout that the image cannot load.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self
from urllib.parse import unquote, urlsplit

MODEL = "bosonai/higgs-audio-v2-generation-3B-base"
MODEL_COMMIT = "10840182ca4ad5d9d9113b60b9bb3c1ef1ba3f84"
CODEC = "bosonai/higgs-audio-v2-tokenizer"
CODEC_COMMIT = "9d4988fbd4ad07b4cac3a5fa462741a41810dbec"
HUBERT = "bosonai/hubert_base"
HUBERT_COMMIT = "b" * 40
NEWER_COMMIT = "e" * 40

OLD_MODEL = {
    "config.json": json.dumps({"model_type": "higgs_audio"}),
    "tokenizer.json": "{}",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-2.safetensors"}}
    ),
    "model-00001-of-00002.safetensors": "a" * 3000,
    "model-2.safetensors": "b" * 3000,
}
NEW_MODEL = {
    "config.json": json.dumps({"model_type": "higgs_audio_v2"}),
    "model.safetensors": "new",
}
OLD_CODEC = {"config.json": json.dumps({"n_filters": 32, "D": 256}), "model.pth": "c" * 2000}
NEW_CODEC = {
    "config.json": json.dumps({"model_type": "higgs_audio_v2_tokenizer"}),
    "model.safetensors": "new",
}
HUBERT_FILES = {
    "config.json": json.dumps({"model_type": "hubert"}),
    "model.safetensors": "d" * 1000,
}
Files = dict[str, str]


class Hub:
    """What the hub holds, and what it was asked.

    Attributes:
        repositories: Name to commit to files; the last commit is what `main` is.
        asked: Paths of all requests.
        refuse: Status that every request gets, or 0.
        cut: Requests for weights that are broken off in their middle before one is not.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Files]] = {
            MODEL: {MODEL_COMMIT: OLD_MODEL, NEWER_COMMIT: NEW_MODEL},
            CODEC: {CODEC_COMMIT: OLD_CODEC, NEWER_COMMIT: NEW_CODEC},
            HUBERT: {HUBERT_COMMIT: HUBERT_FILES},
        }
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.refuse = 0
        self.cut = 0

    def find(self, name: str, revision: str) -> tuple[str, Files] | None:
        """The commit and files of a revision."""
        commits = self.repositories.get(name, {})
        commit = list(commits)[-1] if revision == "main" and commits else revision
        return (commit, commits[commit]) if commit in commits else None


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, as far as huggingface_hub asks."""

    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""

    def do_HEAD(self) -> None:
        """Headers alone."""
        self.answer(body=False)

    def do_GET(self) -> None:
        """A whole answer."""
        self.answer(body=True)

    def send(self, status: int, payload: bytes, headers: dict[str, str], *, body: bool) -> None:
        """Send an answer, or half of it where the hub is to break off."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if not body:
            return
        if self.hub.cut and self.path.endswith((".safetensors", ".pth")):
            self.hub.cut -= 1
            self.wfile.write(payload[: len(payload) // 2])
            self.close_connection = True
            return
        self.wfile.write(payload)

    def answer(self, *, body: bool) -> None:
        """Find out what is asked for."""
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(path)
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.hub.refuse:
            code = {"X-Error-Code": "GatedRepo"} if self.hub.refuse == 403 else {}
            self.send(self.hub.refuse, b"{}", code, body=body)
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.about("/".join(parts[2:4]), parts[4:], body=body)
        elif len(parts) >= 5 and parts[2] == "resolve":
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body=body)
        else:
            self.send(404, b"{}", {}, body=body)

    def about(self, name: str, rest: list[str], *, body: bool) -> None:
        """Tell what a repository holds."""
        revision = rest[1] if len(rest) > 1 else "main"
        found = self.hub.find(name, revision)
        if found is None:
            known = name in self.hub.repositories
            code = "RevisionNotFound" if known else "RepoNotFound"
            self.send(404, b"{}", {"X-Error-Code": code}, body=body)
            return
        commit, files = found
        if rest[:1] == ["tree"]:
            listing = [
                {"type": "file", "path": path, "size": len(text), "oid": _etag(text)}
                for path, text in files.items()
            ]
            self.send(200, json.dumps(listing).encode(), {}, body=body)
            return
        siblings = [{"rfilename": path, "size": len(text)} for path, text in files.items()]
        told = {"id": name, "sha": commit, "siblings": siblings, "private": False}
        kind = {"Content-Type": "application/json"}
        self.send(200, json.dumps(told).encode(), kind, body=body)

    def file(self, name: str, revision: str, path: str, *, body: bool) -> None:
        """Send a file."""
        found = self.hub.find(name, revision)
        if found is None or path not in found[1]:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
            return
        commit, files = found
        payload = files[path].encode()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(files[path])}"'}
        begin = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        if begin and body:
            headers["Content-Range"] = f"bytes {begin}-{len(payload) - 1}/{len(payload)}"
            self.send(206, payload[int(begin) :], headers, body=body)
            return
        self.send(200, payload, headers, body=body)


def handler(hub: Hub) -> type[Handler]:
    """The handler of one hub."""
    return type("BoundHandler", (Handler,), {"hub": hub})


def _etag(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class running:  # noqa: N801  (reads as a phrase)
    """A hub on a free port of this machine."""

    def __init__(self) -> None:
        self.hub = Hub()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self.hub))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), handler(Hub())).serve_forever()
