"""The routes of the Hugging Face Hub that `huggingface_hub` calls to make, fill, list and read a repository.

Written from what its client sends and reads. Regular and LFS files; no Xet, which not every Hub offers. As on the Hub,
a private repository does not exist for those who may not see it, and storage is another host, which takes no token.
"""

import base64
import hashlib
import json
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
    kind: str  # models, datasets or spaces
    name: str  # user/name
    private: bool
    commits: list[Commit] = field(default_factory=list)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def commit(self, message: str, files: dict[str, bytes]) -> Commit:
        content = repr((len(self.commits), message, sorted(files.items())))
        self.commits.append(Commit(hashlib.sha1(content.encode()).hexdigest(), message, files))
        return self.head

    def at(self, revision: str) -> Commit | None:
        return self.head if revision == "main" else next((c for c in self.commits if c.id == revision), None)


class Hub:
    """One Hub in memory: `repositories` by (kind, name), `blobs` (LFS) by sha256.

    Args:
        tokens: token → the user whose it is. readers: tokens that may only read.
        lfs_from: bytes from which a file is LFS; a Parquet file always is.
        part: bytes of a part, if files are to go up in parts.
    """

    def __init__(self, *, lfs_from: int = 5_000, part: int | None = None):
        self.tokens: dict[str, str] = {}
        self.readers: set[str] = set()
        self.lfs_from, self.part = lfs_from, part
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        kind, repo, revision = "/api/(?P<kind>models|datasets|spaces)", "(?P<repo>[^/]+/[^/]+)", "(?P<revision>[^/]+)"
        git = f"/(?:(?P<kind>datasets|spaces)/)?{repo}"
        self.routes = [
            Route("whoami", "GET", "/api/whoami-v2", self.whoami),
            Route("create", "POST", "/api/repos/create", self.create),
            Route("validate-yaml", "POST", "/api/validate-yaml", self.validate_yaml),
            Route("info", "GET", f"{kind}/{repo}(?:/revision/{revision})?", self.info),
            Route("preupload", "POST", f"{kind}/{repo}/preupload/{revision}", self.preupload),
            Route("commit", "POST", f"{kind}/{repo}/commit/{revision}", self.commit),
            Route("tree", "GET", f"{kind}/{repo}/tree/{revision}(?:/(?P<folder>.*))?", self.tree),
            Route("paths-info", "POST", f"{kind}/{repo}/paths-info/{revision}", self.paths_info),
            Route("batch", "POST", rf"{git}\.git/info/lfs/objects/batch", self.batch),
            Route("verify", "POST", rf"{git}\.git/info/lfs/objects/verify", self.verify),
            Route("complete", "POST", rf"{git}\.git/info/lfs/objects/complete", self.complete),
            Route("upload", "PUT", "/storage/(?P<oid>[0-9a-f]{64})(?:/(?P<number>[0-9]+))?", self.upload),
        ]
        for method in ("GET", "HEAD"):
            self.routes.append(Route("storage", method, "/storage/(?P<oid>[0-9a-f]{64})", self.download))
            self.routes.append(Route("resolve", method, f"{git}/resolve/{revision}/(?P<path>.+)", self.resolve))

    def add(self, kind: str, name: str, *, private: bool = True) -> Repository:
        repository = self.repositories[kind, name] = Repository(kind, name, private)
        repository.commit("initial commit", {".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"})
        return repository

    # ---- who, and what they may

    def user(self, request: Request) -> str:
        if request.token not in self.tokens:
            raise _Refused(401, "Invalid credentials in Authorization header")
        return self.tokens[request.token]

    def find(self, request: Request, kind: str | None, name: str, *, write: bool = False) -> Repository:
        user = self.tokens.get(request.token or "")
        if request.token and not user:
            raise _Refused(401, "Invalid credentials in Authorization header")
        repository = self.repositories.get((kind or "models", name))
        own = user == name.partition("/")[0]
        if repository is None or (repository.private and not own):
            raise _Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and (not own or request.token in self.readers):
            raise _Refused(403, "You don't have the rights to do this")
        return repository

    # ---- the routes

    def whoami(self, request: Request) -> Response:
        return _answer(lambda: {"type": "user", "name": self.user(request), "orgs": []})

    def create(self, request: Request) -> Response:
        def made() -> dict[str, Any]:
            user, asked = self.user(request), request.json()
            name = f"{asked.get('organization') or user}/{asked['name']}"
            kind = f"{asked.get('type', 'model')}s"
            if name.partition("/")[0] != user or request.token in self.readers:
                raise _Refused(403, "You don't have the rights to create a repository under this namespace")
            if (kind, name) in self.repositories:
                raise _Refused(409, f"You already created this {kind[:-1]} repo")
            private = asked["visibility"] == "private" if "visibility" in asked else bool(asked.get("private"))
            self.add(kind, name, private=private)
            prefix = "" if kind == "models" else f"{kind}/"
            return {"name": name, "url": f"{request.base}/{prefix}{name}"}

        return _answer(made)

    def validate_yaml(self, request: Request) -> Response:
        # The real one reads the metadata; the client relies only on the form of the answer.
        return Response(200, {"errors": [], "warnings": []})

    def info(self, request: Request, kind: str, repo: str, revision: str | None) -> Response:
        def found() -> dict[str, Any]:
            repository = self.find(request, kind, repo)
            commit = self._commit(repository, revision or "main")
            return {
                "_id": "0",
                "id": repo,
                "author": repo.partition("/")[0],
                "sha": commit.id,
                "private": repository.private,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": name} for name in sorted(commit.files)],
            }

        return _answer(found)

    def preupload(self, request: Request, kind: str, repo: str, revision: str) -> Response:
        def modes() -> dict[str, Any]:
            repository = self.find(request, kind, repo, write=True)
            commit, files = self._commit(repository, revision), []
            for file in request.json()["files"]:
                there = commit.files.get(file["path"])
                mode = "lfs" if self._is_lfs(file["path"], file["size"]) else "regular"
                files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
                if there is not None:
                    files[-1]["oid"] = _oid(there, self._is_lfs(file["path"], len(there)))
            return {"files": files, "commitOid": commit.id}

        return _answer(modes)

    def commit(self, request: Request, kind: str, repo: str, revision: str) -> Response:
        def made() -> dict[str, Any]:
            repository = self.find(request, kind, repo, write=True)
            files = dict(self._commit(repository, revision).files)
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

        return _answer(made)

    def tree(self, request: Request, kind: str, repo: str, revision: str, folder: str | None) -> Response:
        def listed() -> list[dict[str, Any]]:
            files = self._commit(self.find(request, kind, repo), revision).files
            inside = f"{folder}/" if folder else ""
            if folder and not any(name.startswith(inside) for name in files):
                raise _Refused(404, f"{folder} does not exist", "EntryNotFound")
            return [self._entry(name, files[name]) for name in sorted(files) if name.startswith(inside)]

        return _answer(listed)

    def paths_info(self, request: Request, kind: str, repo: str, revision: str) -> Response:
        def listed() -> list[dict[str, Any]]:
            files = self._commit(self.find(request, kind, repo), revision).files
            asked = request.json()["paths"]
            return [self._entry(name, files[name]) for name in asked if name in files]

        return _answer(listed)

    def batch(self, request: Request, kind: str | None, repo: str) -> Response:
        def actions() -> dict[str, Any]:
            self.find(request, kind, repo, write=True)
            prefix = f"{request.base}/{kind}/{repo}" if kind else f"{request.base}/{repo}"
            objects = []
            for asked in request.json()["objects"]:
                objects.append({"oid": asked["oid"], "size": asked["size"]})
                if asked["oid"] in self.blobs:
                    continue
                storage, lfs = _storage(request, asked["oid"]), f"{prefix}.git/info/lfs/objects"
                upload: dict[str, Any] = {"href": storage}
                if self.part and asked["size"] > self.part:
                    count = -(-asked["size"] // self.part)
                    urls = {str(number): f"{storage}/{number}" for number in range(1, count + 1)}
                    upload = {"href": f"{lfs}/complete", "header": {"chunk_size": str(self.part)} | urls}
                objects[-1]["actions"] = {"upload": upload, "verify": {"href": f"{lfs}/verify"}}
            return {"transfer": "basic", "objects": objects}

        return _answer(actions)

    def upload(self, request: Request, oid: str, number: str | None) -> Response:
        if number:
            self.parts.setdefault(oid, {})[int(number)] = request.body
            return Response(200, b"", {"ETag": f'"{number}"'})
        return self._store(oid, request.body)

    def complete(self, request: Request, kind: str | None, repo: str) -> Response:
        asked = request.json()
        parts = self.parts.pop(asked["oid"], {})
        return self._store(asked["oid"], b"".join(parts[part["partNumber"]] for part in asked["parts"]))

    def verify(self, request: Request, kind: str | None, repo: str) -> Response:
        def verified() -> dict[str, Any]:
            self.find(request, kind, repo, write=True)
            asked = request.json()
            if len(self.blobs.get(asked["oid"], b"")) != asked["size"]:
                raise _Refused(422, "size mismatch")
            return {}

        return _answer(verified)

    def resolve(self, request: Request, kind: str | None, repo: str, revision: str, path: str) -> Response:
        try:
            commit = self._commit(self.find(request, kind, repo), revision)
            if path not in commit.files:
                raise _Refused(404, f"{path} does not exist", "EntryNotFound")
        except _Refused as refused:
            return refused.response
        content = commit.files[path]
        lfs = self._is_lfs(path, len(content))
        headers = {"X-Repo-Commit": commit.id, "ETag": f'"{_oid(content, lfs)}"', "Accept-Ranges": "bytes"}
        if lfs:
            oid = _oid(content, True)
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            return Response(302, b"", headers | {"Location": _storage(request, oid)})
        return _content(request, content, headers)

    def download(self, request: Request, oid: str) -> Response:
        return _content(request, self.blobs[oid], {"ETag": f'"{oid}"'}) if oid in self.blobs else Response(404)

    # ---- what they share

    def _commit(self, repository: Repository, revision: str) -> Commit:
        if (commit := repository.at(revision)) is None:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _is_lfs(self, name: str, size: int) -> bool:
        return size > 0 and (name.endswith(".parquet") or size >= self.lfs_from)

    def _store(self, oid: str, content: bytes) -> Response:
        if hashlib.sha256(content).hexdigest() != oid:
            return Response(400, b"BadDigest")
        self.blobs[oid] = content
        return Response()

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(content), "oid": _oid(content, False)}
        if self._is_lfs(name, len(content)):
            entry["lfs"] = {"oid": _oid(content, True), "size": len(content), "pointerSize": 130}
        return entry


class _Refused(Exception):
    def __init__(self, status: int, said: str, code: str = ""):
        super().__init__(said)
        headers = {"X-Error-Message": said} | ({"X-Error-Code": code} if code else {})
        self.response = Response(status, {"error": said}, headers)


def _answer(answer: Any) -> Response:
    try:
        return Response(200, answer())
    except _Refused as refused:
        return refused.response


def _storage(request: Request, oid: str) -> str:
    return f"{request.base.replace('127.0.0.1', 'localhost')}/storage/{oid}"


def _content(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """A file, or the range of it that is asked for."""
    start, _, end = request.headers.get("range", "").removeprefix("bytes=").partition("-")
    if not start:
        return Response(200, content, headers)
    chosen = content[int(start) : int(end) + 1 if end else None]
    where = f"bytes {start}-{int(start) + len(chosen) - 1}/{len(content)}"
    return Response(206, chosen, headers | {"Content-Range": where})


def _oid(content: bytes, lfs: bool) -> str:
    """As the client compares it: sha256 of an LFS file, git's SHA-1 of any other."""
    if lfs:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
