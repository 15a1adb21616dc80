"""A hub of one's own on this machine, and caches as huggingface_hub lays them out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import torch
import yaml

import mtlkit

SPEC: dict[str, Any] = {
    "input": [4],
    "encoder": {"type": "mlp", "hidden": [5], "dropout": 0.5},
    "tasks": {"price": {"outputs": 1}, "sold": {"outputs": 3, "loss": "cross_entropy", "weight": 0.5}},
}
COMMIT = "91c54ad1727ee830252e457677f467be0bfd8a57"


@pytest.fixture
def model() -> mtlkit.Model:
    torch.manual_seed(0)
    return mtlkit.build_model(SPEC)


@pytest.fixture(scope="session")
def same() -> Callable[[mtlkit.Model, mtlkit.Model], bool]:
    """Whether two models have one spec, and one state to the bit."""

    def compared(one: mtlkit.Model, other: mtlkit.Model) -> bool:
        mine, theirs = one.state_dict(), other.state_dict()
        return (
            one.spec == other.spec and list(mine) == list(theirs) and all(torch.equal(mine[k], theirs[k]) for k in mine)
        )

    return compared


@pytest.fixture
def cached(tmp_path: Path) -> Callable[..., Path]:
    """Lays the files of a folder into a cache: a snapshot of links to blobs, which may be links to a shared store."""

    def made(folder: Path, *, shared: bool = False, repository: str = "models--anna--houses") -> Path:
        root = tmp_path / "cache" / repository
        snapshot = root / "snapshots" / COMMIT
        for place in (snapshot, root / "blobs", root / "refs"):
            place.mkdir(parents=True)
        (root / "refs" / "main").write_text(COMMIT)
        for path in sorted(folder.iterdir()):
            data = path.read_bytes()
            blob = root / "blobs" / hashlib.sha1(data).hexdigest()
            if shared:
                digest = hashlib.sha256(data).hexdigest()
                (root.parent / "blobs" / digest[:2]).mkdir(parents=True, exist_ok=True)
                (root.parent / "blobs" / digest[:2] / digest).write_bytes(data)
                blob.symlink_to(f"../../blobs/{digest[:2]}/{digest}")
            else:
                blob.write_bytes(data)
            (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
        return snapshot

    return made


@dataclass
class Repository:
    """What a hub holds under a name: one commit after the other."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    messages: list[str] = field(default_factory=list)
    gated: bool = False

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    @property
    def head(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


@dataclass
class Hub:
    """A hub that knows one user, anna, with one token to write and one to read."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuses: str = ""  # the beginning of requests to answer with status 500


class Handler(BaseHTTPRequestHandler):
    """As much of the Hub's interface as a commit and a download use."""

    hub: Hub
    USERS = {"hf_write": "anna", "hf_read": "anna"}  # noqa: RUF012

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, value: Any = None, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        path, hub = self._path(), self.hub
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        token = (self.headers["authorization"] or "").removeprefix("Bearer ")
        if hub.refuses and path.startswith(hub.refuses):
            return self.answer(500, {})
        if token not in self.USERS:
            return self.answer(401, {}, X_Error_Message="Invalid credentials in Authorization header")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or self.USERS[token]}/{asked['name']}"
            if token != "hf_write":
                return self.answer(403, {}, X_Error_Message="You don't have the rights")
            status = 409 if name in hub.repositories else 200
            hub.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
            return self.answer(status, {"url": f"{hub.url}/{name}"})
        if path == "/api/validate-yaml":
            found = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
            ok = found and isinstance(yaml.safe_load(found[1]), dict)
            return self.answer(200 if ok else 400, {"errors": [] if ok else [{"message": "no metadata"}]})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/]+)", path)
        if not found or found[1] not in hub.repositories:
            return self.answer(404, {}, X_Error_Code="RepoNotFound")
        if found[2] == "preupload":
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": one, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for one in files]
            return self.answer(200, {"files": modes})
        repository = hub.repositories[found[1]]
        header, *lines = [json.loads(line) for line in body.splitlines()]
        files = dict(repository.files)
        for one in lines:
            if one["key"] == "deletedFile":
                del files[one["value"]["path"]]
            else:
                files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
        repository.commits.append(files)
        repository.messages.append(header["value"]["summary"])
        where = {"commitUrl": f"{hub.url}/{found[1]}/commit/{repository.head}", "commitOid": repository.head}
        pull = f"{hub.url}/{found[1]}/discussions/1" if "create_pr" in parse_qs(urlsplit(self.path).query) else None
        return self.answer(200, {**where, "pullRequestUrl": pull})

    def do_GET(self) -> None:
        path, hub = self._path(), self.hub
        found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)/(revision|tree|resolve)/([^/]+)(?:/(.*))?", path)
        asked = path.removeprefix("/api/models/")
        if asked in hub.repositories:
            return self.answer(200, {"id": asked, "private": hub.repositories[asked].private})
        if not found or found[1] not in hub.repositories:
            return self.answer(404, {}, X_Error_Code="RepoNotFound")
        repository = hub.repositories[found[1]]
        if repository.gated:
            return self.answer(403, {}, X_Error_Code="GatedRepo")
        if repository.private and not self.headers["authorization"]:
            return self.answer(401, {}, X_Error_Code="RepoNotFound")
        if found[3] not in ("main", repository.head):
            return self.answer(404, {}, X_Error_Code="RevisionNotFound")
        if found[2] == "revision":
            return self.answer(200, {"id": found[1], "sha": repository.head})
        if found[2] == "tree":
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in repository.files.items()
            ]
            return self.answer(200, listed)
        data = repository.files[found[4]]
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        return self.answer(200, data, ETag=etag, X_Repo_Commit=repository.head)

    do_HEAD = do_GET

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub takes for the Hub, without a token and with a cache of its own."""
    import huggingface_hub
    from huggingface_hub import constants

    found = Hub()
    handler = type("OwnHandler", (Handler,), {"hub": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    _ask(found.url, tmp_path, monkeypatch)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()  # the one that is there may go through a proxy
    assert found.url == constants.ENDPOINT
    yield found
    server.shutdown()
    server.server_close()
    huggingface_hub.close_session()


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens where the Hub should be."""
    _ask("http://127.0.0.1:9", tmp_path, monkeypatch)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def _ask(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
