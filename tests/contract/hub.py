"""The routes of the Hugging Face Hub that `huggingface_hub` calls to make, fill, list and read a repository.

Written from what its client sends and reads. Regular and LFS files; no Xet, which not every Hub offers. As on the Hub,
a private repository does not exist for those who may not see it, and storage is another host, which takes no token.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from contract import Request, Response, Route


@dataclass
class Commit:
    id: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    private: bool
    commits: list[Commit] = field(default_factory=list)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def commit(self, message: str, files: dict[str, bytes]) -> Commit:
        content = repr((len(self.commits), message, sorted(files.items())))
        self.commits.append(Commit(hashlib.sha1(content.encode()).hexdigest(), message, files))
        return self.head

    def at(self, revision: str) -> Commit:
        for commit in self.commits:
            if revision == commit.id:
                return commit
        if revision != "main":
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.head


class Hub:
    """One Hub in memory: `repositories` by (models or datasets, user/name), `blobs` (LFS) by sha256. A file is LFS from
    `LFS_FROM` bytes, and a Parquet file always. A route's method returns what is sent as JSON, or a Response."""

    LFS_FROM = 5_000

    def __init__(self):
        self.tokens: dict[str, str] = {}  # → the user whose it is
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        kind, repo, revision = "/api/(?P<kind>models|datasets)", "(?P<repo>[^/]+/[^/]+)", "(?P<revision>[^/]+)"
        git = f"/(?:(?P<kind>datasets)/)?{repo}"
        storage = "/storage/(?P<oid>[0-9a-f]{64})"
        table = [
            ("whoami", "GET", "/api/whoami-v2", self.whoami),
            ("create", "POST", "/api/repos/create", self.create),
            # The real one reads the metadata; the client relies only on the form of the answer.
            ("validate-yaml", "POST", "/api/validate-yaml", lambda request: {"errors": [], "warnings": []}),
            ("info", "GET", f"{kind}/{repo}(?:/revision/{revision})?", self.info),
            ("preupload", "POST", f"{kind}/{repo}/preupload/{revision}", self.preupload),
            ("commit", "POST", f"{kind}/{repo}/commit/{revision}", self.commit),
            ("tree", "GET", f"{kind}/{repo}/tree/{revision}", self.tree),
            ("batch", "POST", rf"{git}\.git/info/lfs/objects/batch", self.batch),
            ("verify", "POST", rf"{git}\.git/info/lfs/objects/verify", lambda request, **_: {}),
            ("upload", "PUT", storage, self.upload),
        ]
        for method in ("GET", "HEAD"):
            table.append(("storage", method, storage, self.download))
            table.append(("resolve", method, f"{git}/resolve/{revision}/(?P<path>.+)", self.resolve))
        self.routes = [Route(name, method, pattern, _answered(handler)) for name, method, pattern, handler in table]

    def add(self, kind: str, name: str, *, private: bool = True) -> Repository:
        repository = self.repositories[kind, name] = Repository(private)
        repository.commit("initial commit", {".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"})
        return repository

    def user(self, request: Request) -> str:
        if request.token not in self.tokens:
            raise _Refused(401, "Invalid credentials in Authorization header")
        return self.tokens[request.token]

    def find(self, request: Request, kind: str | None, name: str, *, write: bool = False) -> Repository:
        user = self.user(request) if request.token else None
        repository = self.repositories.get((kind or "models", name))
        own = user == name.partition("/")[0]
        if repository is None or (repository.private and not own):
            raise _Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not own:
            raise _Refused(403, "You don't have the rights to do this")
        return repository

    def whoami(self, request: Request) -> dict[str, Any]:
        return {"type": "user", "name": self.user(request), "orgs": []}

    def create(self, request: Request) -> dict[str, Any]:
        user, wanted = self.user(request), request.json()
        name = f"{wanted.get('organization') or user}/{wanted['name']}"
        kind = f"{wanted.get('type', 'model')}s"
        if (kind, name) in self.repositories:
            raise _Refused(409, f"You already created this {kind[:-1]} repo")
        self.add(kind, name, private=bool(wanted.get("private")) or wanted.get("visibility") == "private")
        return {"name": name, "url": f"{request.base}/{'' if kind == 'models' else f'{kind}/'}{name}"}

    def info(self, request: Request, kind: str, repo: str, revision: str | None) -> dict[str, Any]:
        repository = self.find(request, kind, repo)
        commit = repository.at(revision or "main")
        siblings = [{"rfilename": name} for name in sorted(commit.files)]
        return {"_id": "0", "id": repo, "private": repository.private, "sha": commit.id, "siblings": siblings}

    def preupload(self, request: Request, kind: str, repo: str, revision: str) -> dict[str, Any]:
        commit, files = self.find(request, kind, repo, write=True).at(revision), []
        for file in request.json()["files"]:
            there = commit.files.get(file["path"])
            mode = "lfs" if self._is_lfs(file["path"], file["size"]) else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
            if there is not None:
                files[-1]["oid"] = _oid(there, self._is_lfs(file["path"], len(there)))
        return {"files": files, "commitOid": commit.id}

    def commit(self, request: Request, kind: str, repo: str, revision: str) -> dict[str, Any]:
        repository = self.find(request, kind, repo, write=True)
        files = dict(repository.at(revision).files)
        message = ""
        for line in request.body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, repository.head.id):
                    raise _Refused(412, "A commit has happened since")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif key == "lfsFile":
                if value["oid"] not in self.blobs:
                    raise _Refused(400, f"LFS pointer of {value['path']} points to a file that does not exist")
                files[value["path"]] = self.blobs[value["oid"]]
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise _Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise _Refused(400, f"unknown operation {key}")
        commit = repository.commit(message, files)  # all of it, or nothing
        url = f"{request.base}/{kind}/{repo}/commit/{commit.id}"
        return {"success": True, "commitOid": commit.id, "commitUrl": url, "hookOutput": ""}

    def tree(self, request: Request, kind: str, repo: str, revision: str) -> list[dict[str, Any]]:
        entries = []
        for name, content in sorted(self.find(request, kind, repo).at(revision).files.items()):
            entries.append({"type": "file", "path": name, "size": len(content), "oid": _oid(content, False)})
            if self._is_lfs(name, len(content)):
                entries[-1]["lfs"] = {"oid": _oid(content, True), "size": len(content), "pointerSize": 130}
        return entries

    def batch(self, request: Request, kind: str | None, repo: str) -> dict[str, Any]:
        self.find(request, kind, repo, write=True)
        prefix = f"{request.base}/{kind}/{repo}" if kind else f"{request.base}/{repo}"
        objects = []
        for wanted in request.json()["objects"]:
            objects.append({"oid": wanted["oid"], "size": wanted["size"]})
            if wanted["oid"] not in self.blobs:
                upload, verify = _storage(request, wanted["oid"]), f"{prefix}.git/info/lfs/objects/verify"
                objects[-1]["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        return {"transfer": "basic", "objects": objects}

    def upload(self, request: Request, oid: str) -> Response:
        if hashlib.sha256(request.body).hexdigest() != oid:
            return Response(400, b"BadDigest")
        self.blobs[oid] = request.body
        return Response()

    def resolve(self, request: Request, kind: str | None, repo: str, revision: str, path: str) -> Response:
        commit = self.find(request, kind, repo).at(revision)
        if path not in commit.files:
            raise _Refused(404, f"{path} does not exist", "EntryNotFound")
        content = commit.files[path]
        lfs = self._is_lfs(path, len(content))
        oid = _oid(content, lfs)
        headers = {"X-Repo-Commit": commit.id, "ETag": f'"{oid}"'}
        if not lfs:
            return Response(200, content, headers)
        headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        return Response(302, b"", headers | {"Location": _storage(request, oid)})

    def download(self, request: Request, oid: str) -> Response:
        return Response(200, self.blobs[oid], {"ETag": f'"{oid}"'}) if oid in self.blobs else Response(404)

    def _is_lfs(self, name: str, size: int) -> bool:
        return size > 0 and (name.endswith(".parquet") or size >= self.LFS_FROM)


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str = ""):
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.response = Response(status, {"error": message}, headers)


def _answered(handler: Callable[..., Any]) -> Callable[..., Response]:
    def answer(request: Request, **groups: str | None) -> Response:
        try:
            answered = handler(request, **groups)
        except _Refused as refused:
            return refused.response
        return answered if isinstance(answered, Response) else Response(200, answered)

    return answer


def _storage(request: Request, oid: str) -> str:
    return f"{request.base.replace('127.0.0.1', 'localhost')}/storage/{oid}"


def _oid(content: bytes, lfs: bool) -> str:
    """As the client compares it: sha256 of an LFS file, git's SHA-1 of any other."""
    if lfs:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
