"""Data sets and weights on the Hugging Face Hub: what would go (`plan`, `of_files`), its going (`push`, `send`), and
what is there (`listing`, `read`).

The token is read from `HF_TOKEN` at the moment of use. A set goes in one commit: the repository shows the old set or
the new one, never half. Calling again after a failure goes on: what the Hub holds already is not sent twice, and a set
that stands there unchanged makes no commit. Whether a set passed its audit is the caller's to find out, with
`evaluation.audit.verdict`, and to hand over.
"""

import contextlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from elle.base import patience, secrets, storage
from elle.base.errors import ElleError
from elle.base.patience import Again, Say
from elle.briefings import dataset

#: What the audit writes, and goes with a set: its findings, and the data card made from them.
AUDITED = ("audit.json", "README.md")

#: Files that are small wherever they occur: they go with the commit itself.
SMALL = (".json", ".md", ".yaml", ".jinja", ".txt", ".gz")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class File:
    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class UploadPlan:
    """What would go: files of `folder`, to the repository `repository` (no user in it: the token's own) of a kind,
    `dataset` or `model`; `message` is the commit's."""

    folder: Path
    repository: str
    private: bool
    files: tuple[File, ...]
    kind: str = "dataset"
    message: str = ""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        files = [asdict(file) for file in self.files]
        return {"repository": self.repository, "private": self.private, "bytes": self.size, "files": files}

    def text(self) -> str:
        own = "" if "/" in self.repository else " of the token's account"
        access = "private" if self.private else "PUBLIC"
        width = max(len(file.name) for file in self.files)
        lines = [f"{access} {self.kind} repository {self.repository}{own}"]
        lines += [f"  {file.name:<{width}}  {file.size:>13,} bytes  sha256 {file.sha256}" for file in self.files]
        return "\n".join([*lines, f"  {'in all':<{width}}  {self.size:>13,} bytes"])


@dataclass(frozen=True)
class Pushed:
    repository: str
    url: str
    commit: str
    new: bool  # False: this very set stood there already
    private: bool
    files: int
    size: int  # bytes

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def upload_plan(
    folder: Path | str,
    repo: str | None = None,
    *,
    verdict: Sequence[str] | None,
    private: bool = True,
    force: bool = False,
) -> UploadPlan:
    """What `push` would send, and where to; needs no token and no network.

    Args:
        repo: `user/name`, or `name`, which is put under `HF_USERNAME` or else the token's account; None: that of
            `HF_DATASET_REPO`.
        verdict: why the set failed its audit: [] where it passed, None where it was not audited.
        force: send it whatever the verdict. Without an audit, no card and no findings go with it.

    Raises:
        ElleError: no set, no repository named, a set that did not pass its audit, or files that are not the manifest's.
    """
    folder = Path(folder)
    manifest = dataset.load_manifest(folder)
    named = repository(repo)
    if verdict is None and not force:
        raise ElleError(
            "this set has not been audited as it stands",
            where=str(folder),
            fix="run `elle data audit` on it; --force publishes it without a card",
        )
    if verdict and not force:
        raise ElleError(
            f"this set failed its audit: {verdict[0]}",
            where=str(folder / AUDITED[0]),
            fix="put it right and audit it again; --force publishes it all the same, with a card that says so",
        )
    hashes = {facts["file"]: facts["sha256"] for facts in manifest["splits"].values()}
    files = []
    for name in (*hashes, dataset.MANIFEST, *(AUDITED if verdict is not None else ())):
        path = folder / name
        if not path.is_file():
            raise ElleError(f"the set's file {name!r} is not in its folder", where=str(folder), fix="make the set anew")
        file = File(name, path.stat().st_size, storage.sha256(path))
        if hashes.get(name, file.sha256) != file.sha256:
            raise ElleError("this is not the file that the manifest describes", where=str(path), fix="make it anew")
        files.append(file)
    return UploadPlan(folder, named, private, tuple(files))


def push(
    folder: Path | str,
    repo: str | None = None,
    *,
    verdict: Sequence[str] | None,
    private: bool = True,
    force: bool = False,
    message: str | None = None,
    retries: int = 5,
    timeout: float = 60.0,
    endpoint: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Pushed:
    """Send a set to its dataset repository, made where there is none; the arguments of `plan`, and these.

    Tried anew, with growing waits, after 408, 429 (as long as the Hub asks for), 5xx, a lost connection or a time-out;
    not after another refusal. The folder is only read.

    Args:
        message: of the commit. retries: tries after the first. timeout: seconds of silence, of one request.
        endpoint: the Hub's URL; None: `HF_ENDPOINT`, or else huggingface.co.
        progress: called with (bytes done, bytes in all). say: called with a sentence before each new try.

    Raises:
        ElleError: what `plan` raises; no token or one that is refused; a repository that is public where a private
            one was asked for, or the reverse; the Hub refuses, or cannot be reached.
    """
    planned = upload_plan(folder, repo, verdict=verdict, private=private, force=force)
    planned = replace(planned, message=message or f"Elle's briefings: {Path(folder).resolve().name}")
    return send(planned, retries=retries, timeout=timeout, endpoint=endpoint, progress=progress, say=say)


def of_files(folder: Path, names: Iterable[str], repo: str | None, *, kind: str, message: str) -> UploadPlan:
    """What `send` would send of the files `names` of `folder`, under these very names, to a private repository.

    Args:
        repo: as for `plan`.

    Raises:
        ElleError: no repository named, or a file that cannot be read.
    """
    paths = ((name, Path(folder) / name) for name in names)
    # Hashed first: that says of a file that cannot be read which it is.
    hashed = [(name, path, storage.sha256(path)) for name, path in paths]
    files = tuple(File(name, path.stat().st_size, sha256) for name, path, sha256 in hashed)
    return UploadPlan(Path(folder), repository(repo), True, files, kind, message)


def send(
    planned: UploadPlan,
    *,
    retries: int = 5,
    timeout: float = 60.0,
    endpoint: str | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Pushed:
    """Send what is planned in one commit; the arguments and failures of `push`."""
    heads: list[str] = []
    return _patiently(
        lambda api: _attempt(api, planned, heads, progress),
        f"the Hub did not take the {'set' if planned.kind == 'dataset' else 'weights'}",
        (planned.repository, planned.kind), retries, timeout, endpoint, say,
    )  # fmt: skip


def ensure_uploaded(repo: str, kind: str, *, endpoint: str | None = None, say: Say | None = None) -> None:
    """A private repository of that name, made where there is none.

    Raises:
        ElleError: it is there and public, or the Hub refuses.
    """
    _patiently(
        lambda api: _ensured(api, repo, kind, True),
        "the Hub did not make the repository", (repo, kind), 5, 30.0, endpoint, say,
    )  # fmt: skip


def listing(repo: str, kind: str, *, endpoint: str | None = None, retries: int = 5) -> dict[str, tuple[int, str]]:
    """The files of a repository: name → (bytes, sha256 of an LFS file, git's SHA-1 of others); {}: no repository."""

    def listed(api: Any) -> dict[str, tuple[int, str]]:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            entries = list(api.list_repo_tree(repo, recursive=True, repo_type=kind))
        except RepositoryNotFoundError:
            return {}
        return {e.path: (e.size, e.lfs.sha256 if e.lfs else e.blob_id) for e in entries if hasattr(e, "blob_id")}

    return _patiently(listed, "the Hub did not list its files", (repo, kind), retries, 30.0, endpoint, None)


def read_remote(repo: str, kind: str, name: str, *, endpoint: str | None = None, retries: int = 5) -> bytes | None:
    """The content of a file in a repository; None where there is none."""

    def content(api: Any) -> bytes | None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session

        url = hf_hub_url(repo, name, repo_type=kind, endpoint=api.endpoint)
        answer = get_session().get(url, headers=build_hf_headers(token=api.token), follow_redirects=True)
        if answer.status_code in (401, 404):  # a private repository does not exist for those who may not see it
            return None
        answer.raise_for_status()
        return answer.content

    return _patiently(content, "the Hub did not give the file", (repo, kind), retries, 30.0, endpoint, None)


def download(
    repo: str, kind: str, pattern: str, folder: Path, *, endpoint: str | None = None, retries: int = 8, say: Say | None
) -> None:
    """The files of a repository whose names match `pattern`, into a folder."""
    _patiently(
        lambda api: api.snapshot_download(repo, repo_type=kind, allow_patterns=pattern, local_dir=folder),
        "the Hub did not give the files", (repo, kind), retries, 60.0, endpoint, say,
    )  # fmt: skip


def _patiently[T](
    attempt: Callable[[Any], T],
    what: str,
    where: tuple[str, str],
    retries: int,
    timeout: float,
    endpoint: str | None,
    say: Say | None,
) -> T:
    """The result of `attempt(api)`, tried again after a failure that may pass; where: repository and kind."""
    endpoint = _endpoint(endpoint)
    token = _token(endpoint)
    try:
        from huggingface_hub import HfApi, constants
    except ImportError as error:
        raise ElleError("huggingface_hub is not installed", where="elle data push", fix="run `make setup`") from error
    if constants.is_offline_mode():
        raise ElleError(
            "the Hub's library is set to stay offline",
            where="environment variable HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE)",
            fix="unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE, in a notebook restart the kernel, and push again",
        )

    api = HfApi(endpoint=endpoint, token=token, library_name="elle")
    with _session(timeout):
        return patience.patiently(
            lambda: attempt(api),
            read=lambda error: _read(error, _url(endpoint, *where), endpoint, token),
            retries=retries,
            who="the Hub",
            what=what,
            where=endpoint,
            fix="give the same command again later: it goes on, and nothing is lost",
            say=say,
        )


def _url(endpoint: str, repo: str, kind: str) -> str:
    return f"{endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def repository(repo: str | None, variable: str = "HF_DATASET_REPO") -> str:
    """The repository called `repo`, by default that of the environment variable; under HF_USERNAME, if that is set.

    Raises:
        ElleError: none is named, or its name is none.
    """
    name = repo or os.environ.get(variable, "").strip()
    where = "--repo" if repo else f"environment variable {variable}"
    if not name:
        raise ElleError("no repository is named", where=where, fix=f"give --repo NAME, or set {variable}")
    user = os.environ.get("HF_USERNAME", "").strip()
    name = f"{user}/{name}" if user and "/" not in name else name
    word = r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9_])?"
    if not re.fullmatch(f"({word}/)?{word}", name, re.ASCII) or "--" in name or ".." in name or len(name) > 96:
        raise ElleError(
            f"{name!r} is no name of a repository",
            where=where,
            fix="use user/name or name, of letters, digits, '-', '_', '.', no two '-' or '.' running",
        )
    return name


def _endpoint(endpoint: str | None) -> str:
    url = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return secrets.address(url, "the Hub's", "HF_ENDPOINT")


def _token(endpoint: str) -> str:
    fix = f"export HF_TOKEN, one with write access ({endpoint}/settings/tokens)"
    return secrets.secret("HF_TOKEN", "token for the Hub", fix)


class _Reader(io.BufferedReader):
    """An open file that tells how far it was read.

    huggingface_hub sends an open file by the Hub's LFS protocol, and a path by Xet where hf_xet is installed, without a
    way back for a server that has no Xet. LFS is what every Hub speaks, and what the tests drive.
    """

    tell_progress: Callable[[int], None] | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.tell_progress:
            self.tell_progress(self.tell())
        return data


@contextlib.contextmanager
def _session(timeout: float) -> Iterator[None]:
    """Let huggingface_hub's requests time out, and leave trying again to `push`.

    By itself the library waits for ever, tries some requests again and not others, in step with everyone, and asks
    huggingface.co for a list of programs to tell of in its telemetry, whatever the endpoint.
    """
    import httpx
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import (
        _http,
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        parse_ratelimit_headers,
    )

    before = _http._GLOBAL_CLIENT_FACTORY  # there is no public way to ask for it
    log = logging.getLogger("huggingface_hub")

    def factory() -> httpx.Client:
        client = before()
        send = client.send

        def checked(request: httpx.Request, **options: Any) -> httpx.Response:
            request.extensions["timeout"] = httpx.Timeout(timeout).as_dict()
            try:
                response = send(request, **options)
            except httpx.TimeoutException as error:
                raise Again(f"no answer within {timeout:g} s") from error
            except httpx.TransportError as error:
                raise Again(f"the connection failed ({error})") from error
            if response.status_code in (408, 429) or response.status_code >= 500:
                limit = parse_ratelimit_headers(response.headers)
                reset = limit.reset_in_seconds if limit and limit.remaining == 0 else 0
                asked = max(patience.seconds(response.headers.get("Retry-After", "")), reset)
                raise Again(f"it answered {response.status_code} {response.reason_phrase}".rstrip(), asked)
            return response

        client.send = checked
        return client

    level, bars, telemetry = log.level, not are_progress_bars_disabled(), constants.HF_HUB_DISABLE_TELEMETRY
    set_client_factory(factory)
    log.setLevel(logging.ERROR)
    disable_progress_bars()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry
        if bars:
            enable_progress_bars()
        log.setLevel(level)
        set_client_factory(before)


def _ensured(api: Any, repo: str, kind: str, private: bool) -> Any:
    """What the Hub knows of a repository, made where there is none."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        info = api.repo_info(repo, repo_type=kind)
    except HfHubHTTPError as error:
        if error.response.status_code != 404 and not isinstance(error, RepositoryNotFoundError):
            raise
        api.create_repo(repo, repo_type=kind, private=private)
        info = api.repo_info(repo, repo_type=kind)
    if bool(info.private) != private:
        there, asked = ("private", "public") if info.private else ("public", "private")
        raise ElleError(
            f"the repository exists and is {there}, and you asked for a {asked} one; nothing was sent",
            where=_url(api.endpoint, repo, kind),
            fix=f"make it {asked} in its settings, choose another --repo, or "
            + ("leave out --public" if info.private else "say --public"),
        )
    return info


def _attempt(api: Any, planned: UploadPlan, heads: list[str], progress: Progress | None) -> Pushed:
    """Try once; `heads` takes the commit that was found, the first of them being the one before this push."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    kind = planned.kind
    repo = planned.repository if "/" in planned.repository else f"{api.whoami()['name']}/{planned.repository}"
    info = _ensured(api, repo, kind, planned.private)
    heads.append(info.sha)
    done = 0
    with contextlib.ExitStack() as stack:
        additions = []
        for file in planned.files:
            path = planned.folder / file.name
            try:
                reader = stack.enter_context(_Reader(io.FileIO(path)))
                addition = CommitOperationAdd(file.name, reader)
            except OSError as error:
                raise ElleError(f"cannot read: {error.strerror}", where=str(path)) from error
            if addition.upload_info.sha256.hex() != file.sha256:
                raise ElleError("this file was changed while it was being sent", where=str(path), fix="push again")
            if Path(file.name).suffix not in SMALL:
                # One by one: what is sent stays on the Hub, whatever becomes of the next.
                if progress:
                    reader.tell_progress = lambda at, before=done: progress(before + at, planned.size)
                api.preupload_lfs_files(repo, [addition], repo_type=kind, free_memory=False)
                reader.tell_progress = None
                done += file.size
                if progress:
                    progress(done, planned.size)
            additions.append(addition)
        ours = {f"{split}.{format}" for split in dataset.SPLITS for format in dataset.FORMATS} | {*AUDITED}
        there = {sibling.rfilename for sibling in info.siblings or ()}
        names = {file.name for file in planned.files}
        of_another_set = sorted((there & ours) - names) if dataset.MANIFEST in names else []
        deletions = [CommitOperationDelete(name) for name in of_another_set]
        # With its parent named, a commit that the Hub takes up after its time-out cannot follow the next try's.
        options = {"commit_message": planned.message, "repo_type": kind, "parent_commit": info.sha}
        commit = api.create_commit(repo, [*additions, *deletions], **options)
    if progress:
        progress(planned.size, planned.size)
    return Pushed(
        repo,
        _url(api.endpoint, repo, kind),
        commit.oid,
        commit.oid != heads[0],
        planned.private,
        len(planned.files),
        planned.size,
    )


def _read(error: Exception, where: str, endpoint: str, token: str) -> Again | ElleError:
    """What a failed attempt means. Nothing of it quotes the token, whatever the server said."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, Again):
            cause.reason = cause.reason.replace(token, "…")
            return cause
        if isinstance(cause, ElleError):
            return cause
    answer = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if answer is None:
        if not isinstance(error, (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, RuntimeError)):
            raise error
        said = f"{type(error).__name__}: {error}".replace(token, "…")
        return ElleError(f"the Hub's answer cannot be used: {said}", where=where, fix="is this address a Hub's?")
    status, said = answer.response.status_code, (answer.server_message or "").replace(token, "…")
    if status == 412:
        return Again("the repository was changed at the same time")
    said = f" (it said: {said})" if said else ""
    if status == 401:
        return ElleError(
            f"the Hub does not accept the token{said}",
            where="environment variable HF_TOKEN",
            fix=f"export one that is valid and may write ({endpoint}/settings/tokens)",
        )
    if status == 403:
        return ElleError(
            f"the token may not write to this repository{said}",
            where=where,
            fix=f"export HF_TOKEN, one with write access to that account ({endpoint}/settings/tokens)",
        )
    if status == 409:
        return ElleError(
            f"the repository exists and this token may not see it, or it is being changed{said}",
            where=where,
            fix="choose another --repo, or push again",
        )
    return ElleError(f"the Hub refuses with {status}{said}", where=where, fix="check the repository's name")
