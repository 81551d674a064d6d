"""A small server that speaks as much of the Hugging Face Hub's protocol as uploads need, with accidents to order.

Large files go the way of git-lfs, as the hub has them without hf_xet: what is uploaded there and not committed stays out of
the repository.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import yaml

TOKEN = "hf_of_the_test"


class FakeHub:
    """Repositories in memory.

    Args:
        fail: status by the word for what fails: whoami, create, commit, lfs.
        role: of the token.
        orgs: of the account, which is `me`.

    Attributes:
        repos: by id, files by path.
        private: by id.
        asked: what was asked for, as method and path.
        commits: message by commit.
    """

    def __init__(self, orgs: tuple[str, ...] = ("team",)) -> None:
        self.fail: dict[str, int] = {}
        self.role, self.orgs = "write", orgs
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.commits: list[str] = []
        self.large: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline(), 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def send(self, status: int, content: Any) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status >= 400:
                    self.send_header("X-Error-Message", content["error"])
                self.end_headers()
                self.wfile.write(data)

            def answer(self) -> None:
                path, body = urlsplit(self.path).path, self.body()
                hub.asked.append(f"{self.command} {path}")
                if path.startswith("/large/"):  # storage, which knows no accounts
                    status, content = hub.put(path.rpartition("/")[2], body)
                elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, content = 401, {"error": "Invalid username or password."}
                else:
                    status, content = hub.answer(self.command, path, body)
                self.send(status, content)

            do_GET = do_POST = do_PUT = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def reset(self) -> None:
        """As it was made."""
        self.role = "write"
        for held in (self.fail, self.repos, self.private, self.asked, self.commits, self.large):
            held.clear()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and content of an answer."""
        for word, part in (
            ("whoami", "whoami"),
            ("create", "/create"),
            ("commit", "/commit/"),
            ("lfs", "/lfs/"),
        ):
            if word in self.fail and part in path:
                return self.fail[word], {"error": f"no {word} today"}
        if path == "/api/whoami-v2":
            token = {"displayName": "test", "role": self.role}
            return 200, {
                "name": "me", "orgs": [{"name": o} for o in self.orgs], "auth": {"accessToken": token},
            }  # fmt: skip
        if path == "/api/validate-yaml":
            return self.validated(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            sent = [
                {
                    "oid": o["oid"], "size": o["size"], "authenticated": True,
                    "actions": {"upload": {"href": f"{self.url}/large/{o['oid']}"}},
                }
                for o in json.loads(body)["objects"]
            ]  # fmt: skip
            return 200, {"transfer": "basic", "objects": sent}
        _, _, _, owner, name, *rest = path.split("/")
        repo_id = f"{owner}/{name}"
        if repo_id not in self.repos:
            return 404, {"error": "Repository not found"}
        return self.of_repository(repo_id, rest, body)

    def of_repository(self, repo_id: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        files = self.repos[repo_id]
        what = rest[0] if rest else "info"
        if what == "tree":
            return 200, [
                {"type": "file", "path": name, "size": len(data), "oid": blob_id(data)}
                for name, data in files.items()
            ]
        if what == "preupload":
            told = [
                {
                    "path": file["path"], "shouldIgnore": False,
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                }
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            return 200, {"files": told}
        if what == "commit":
            return self.commit(repo_id, [json.loads(line) for line in body.splitlines() if line])
        return 200, {
            "_id": "1",
            "id": repo_id,
            "sha": "0" * 40,
            "private": self.private[repo_id],
            "tags": [],
            "siblings": [],
        }

    def create(self, given: dict[str, Any]) -> tuple[int, Any]:
        repo_id = f"{given.get('organization') or 'me'}/{given['name']}"
        url = {"url": f"{self.url}/{repo_id}"}
        if repo_id in self.repos:
            return 409, {"error": "You already created this model repo", **url}
        self.repos[repo_id] = {".gitattributes": b"*.safetensors filter=lfs"}
        self.private[repo_id] = bool(given.get("private")) or given.get("visibility") == "private"
        return 200, url

    def put(self, oid: str, data: bytes) -> tuple[int, Any]:
        if hashlib.sha256(data).hexdigest() != oid:
            return 400, {"error": "another hash"}
        self.large[oid] = data
        return 200, {}

    def commit(self, repo_id: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        files = dict(self.repos[repo_id])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                self.commits.append(value["summary"])
        self.repos[repo_id] = files
        return 200, {"commitUrl": f"{self.url}/{repo_id}/commit/{'1' * 40}", "commitOid": "1" * 40}

    def validated(self, card: str) -> tuple[int, Any]:
        """What the hub refuses in a card: a base model that is none of its ids, tags that are no text."""
        front = yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else {}
        base = front.get("base_model", "a/b")
        errors = [] if base.count("/") == 1 else [f'"base_model" with value "{base}" is not valid.']
        errors += (
            [] if all(isinstance(tag, str) for tag in front.get("tags", [])) else ['"tags" must be strings']
        )
        if errors:
            return 400, {"error": errors[0], "errors": [{"message": e} for e in errors], "warnings": []}
        return 200, {"errors": [], "warnings": []}


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
