"""A stand-in for the Hugging Face Hub on this machine: the part of its protocol that uploads and downloads use.

Repositories live in memory. Faults are scripted: `server.fail("POST", r"/commit/", 500)` answers the next such request
with 500, `status=None` breaks the connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from local_server import Fault, LocalServer

TOKEN = "hf_" + "Secret" * 5
USER, ORGANIZATION = "me", "our-lab"


@dataclass
class Repository:
    """A repository: its files by path, whether it is private, and its commits."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr((sorted(self.files.items()), len(self.commits))).encode()).hexdigest()


class HubServer(LocalServer):
    """Start with `with HubServer() as server`; its address is `server.endpoint`."""

    def __init__(self) -> None:
        super().__init__(Handler, "hub")
        self.lfs = True  # whether weights and plots are stored as large files
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.lfs = True

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append((method, path))
            return self.fault_of(method, path)


def blob_id(content: bytes) -> str:
    """The hash that git gives a file's contents."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # send an answer in one piece; small pieces would wait for acknowledgements
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        fault = self.hub.next_fault(self.command, path)
        if fault and not fault.after:
            return self.break_off() if fault.status is None else self.answer(fault.status, fault.body, fault.headers)
        if (
            not path.startswith(("/lfs/", "/api/validate-yaml"))
            and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        ):
            return self.answer(401, {"error": "Invalid username or password."})
        for method, pattern, action in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                if fault:
                    self.answer = lambda *_, **__: None  # type: ignore[method-assign]
                    action(self, body, *match.groups())
                    return self.break_off()
                return action(self, body, *match.groups())
        return self.answer(404, {"error": f"no such page: {path}"})

    do_GET = do_POST = do_PUT = do_HEAD = handle_one

    def break_off(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status: int, body: Any = "", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    # --- pages ------------------------------------------------------------------------------------------------------

    def who_am_i(self, body: bytes) -> None:
        self.answer(200, {"type": "user", "name": USER, "orgs": [{"name": ORGANIZATION}], "auth": {}})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        owner = asked.get("organization") or USER
        if owner not in (USER, ORGANIZATION):
            return self.answer(403, {"error": f"You don't have the rights to create a model under {owner}"})
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repositories:
            return self.answer(
                409, {"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{name}"}
            )
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repositories[name] = Repository(private)
        return self.answer(200, {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})

    def validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        if not content.startswith("---\n") or "license: foo" in content:
            return self.answer(400, {"errors": [{"message": '"license" must be one of a list'}], "warnings": []})
        return self.answer(200, {"errors": [], "warnings": []})

    def repository(self, name: str) -> Repository | None:
        if name not in self.hub.repositories:
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return self.hub.repositories.get(name)

    def info(self, body: bytes, name: str, _: str | None) -> None:
        if repo := self.repository(name):
            siblings = []
            for path, content in repo.files.items():
                lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
                large = self.hub.lfs and path.endswith((".safetensors", ".png"))
                siblings.append(
                    {"rfilename": path, "size": len(content), "blobId": blob_id(content)}
                    | ({"lfs": lfs} if large else {})
                )
            facts = {"id": name, "modelId": name, "sha": repo.sha, "private": repo.private, "siblings": siblings}
            self.answer(200, facts | {"tags": [], "downloads": 0, "likes": 0})

    def tree(self, body: bytes, name: str, _: str) -> None:
        if repo := self.repository(name):
            files = [{"type": "file", "path": p, "size": len(c), "oid": blob_id(c)} for p, c in repo.files.items()]
            self.answer(200, files)

    def preupload(self, body: bytes, name: str, _: str) -> None:
        if repo := self.repository(name):
            files = []
            for entry in json.loads(body)["files"]:
                large = self.hub.lfs and entry["path"].endswith((".safetensors", ".png"))
                there = repo.files.get(entry["path"])
                oid = None if there is None else hashlib.sha256(there).hexdigest() if large else blob_id(there)
                mode = "lfs" if large else "regular"
                files.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self.answer(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        objects = []
        for entry in json.loads(body)["objects"]:
            if entry["oid"] not in self.hub.large:
                entry["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{entry['oid']}", "header": {}}}
            objects.append(entry)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        good = hashlib.sha256(body).hexdigest() == oid
        if good:
            self.hub.large[oid] = body
        self.answer(200 if good else 400)

    def commit(self, body: bytes, name: str, _: str) -> None:
        if not (repo := self.repository(name)):
            return
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", repo.sha) != repo.sha:
            return self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del repo.files[value["path"]]
        repo.commits.append(header)
        return self.answer(200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{repo.sha}", "commitOid": repo.sha})

    def resolve(self, body: bytes, name: str, _: str, path: str) -> None:
        if repo := self.repository(name):
            if path not in repo.files:
                return self.answer(404, "", {"X-Error-Code": "EntryNotFound"})
            content = repo.files[path]
            return self.answer(200, content, {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": repo.sha})
        return None


NAME = r"([^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", Handler.who_am_i),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("GET", rf"/api/models/{NAME}(?:/revision/([^/]+))?", Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/([^/]+)", Handler.tree),
    ("POST", rf"/api/models/{NAME}/preupload/([^/]+)", Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", Handler.put),
    ("POST", rf"/api/models/{NAME}/commit/([^/]+)", Handler.commit),
    ("HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("GET", rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]
