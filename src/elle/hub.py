"""Data sets and weights on the Hugging Face Hub, by `huggingface_hub`: what would be sent (`upload_plan`, `of_files`),
sending it (`push`, `send`), and what is there (`listing`, `read_remote`, `download`).

The token is read from `HF_TOKEN` at the moment of use, the Hub's address from `HF_ENDPOINT`. An upload is one commit:
the repository shows the old files or the new ones. Calling again after a failure sends only what the Hub lacks.
"""

import contextlib
import itertools
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elle.base import secrets, storage
from elle.base.errors import ElleError
from elle.briefings import dataset

#: What the audit writes, and goes with a set: its findings, and the data card made from them.
AUDITED = ("audit.json", "README.md")

#: Seconds before the first new try, which double from try to try, give or take a half; and the longest wait.
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0

Files = dict[str, tuple[int, str]]
Progress = Callable[[int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class UploadPlan:
    """What would be sent: `files` (name → bytes, sha256) of `folder`, to a repository (without a user in its name: the
    token's own) of a kind, `dataset` or `model`; `message` is the commit's."""

    folder: Path
    repository: str
    private: bool
    files: Files
    kind: str = "dataset"
    message: str = ""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(size for size, _ in self.files.values())

    def to_json(self) -> dict[str, Any]:
        files = [{"name": name, "size": size, "sha256": sha256} for name, (size, sha256) in self.files.items()]
        return {"repository": self.repository, "private": self.private, "bytes": self.size, "files": files}

    def text(self) -> str:
        own = "" if "/" in self.repository else " of the token's account"
        access = "private" if self.private else "PUBLIC"
        width = max(map(len, self.files))
        lines = [f"{access} {self.kind} repository {self.repository}{own}"]
        lines += [f"  {name:<{width}}  {size:>13,} bytes  sha256 {sha}" for name, (size, sha) in self.files.items()]
        return "\n".join([*lines, f"  {'in all':<{width}}  {self.size:>13,} bytes"])


@dataclass(frozen=True)
class Pushed:
    repository: str
    url: str
    commit: str
    new: bool  # False: these very files stood there already
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
    names = (*hashes, dataset.MANIFEST, *(AUDITED if verdict is not None else ()))
    for name in names:
        if not (folder / name).is_file():
            raise ElleError(f"the set's file {name!r} is not in its folder", where=str(folder), fix="make the set anew")
    files = _files(folder, names)
    for name, (_, sha256) in files.items():
        if hashes.get(name, sha256) != sha256:
            where = str(folder / name)
            raise ElleError("this is not the file that the manifest describes", where=where, fix="make it anew")
    return UploadPlan(folder, named, private, files, message=f"Elle's briefings: {folder.resolve().name}")


def of_files(folder: Path, names: Iterable[str], repo: str | None, *, kind: str, message: str) -> UploadPlan:
    """What `send` would send of the files `names` of `folder`, under these very names, to a private repository, named
    as for `upload_plan`; an ElleError for a file that cannot be read."""
    return UploadPlan(Path(folder), repository(repo), True, _files(Path(folder), names), kind, message)


def _files(folder: Path, names: Iterable[str]) -> Files:
    hashed = [(name, storage.sha256(folder / name)) for name in names]
    return {name: ((folder / name).stat().st_size, sha256) for name, sha256 in hashed}


def push(
    folder: Path | str, repo: str | None = None, *, progress: Progress | None = None, say: Say | None = None, **options
) -> Pushed:
    """Send a set to its dataset repository, made where there is none: `upload_plan` with its `options`, then `send`."""
    return send(upload_plan(folder, repo, **options), progress=progress, say=say)


def send(
    planned: UploadPlan,
    *,
    retries: int = 5,
    until: float | None = None,
    timeout: float = 60.0,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Pushed:
    """Send what is planned in one commit, and check what the Hub then holds. The folder is only read.

    Tried again, with growing waits, after 408, 429 (as long as the Hub asks for), 5xx, a lost connection or a time-out;
    not after another refusal.

    Args:
        retries: tries after the first. until: instead, a `time.monotonic()` until which it is tried again whatever the
            Hub answers. timeout: seconds of silence, of one request.
        progress: called with (bytes done, bytes in all). say: called with a sentence before each new try.

    Raises:
        ElleError: no token or one that is refused; a repository that is public where a private one is wanted, or the
            reverse; a file that changes meanwhile; the Hub refuses, or cannot be reached.
    """
    heads: list[str] = []
    what = f"the Hub did not take the {'set' if planned.kind == 'dataset' else 'weights'}"
    where = (planned.repository, planned.kind)
    return _patiently(lambda api: _commit(api, planned, heads, progress), what, where, retries, timeout, say, until)


def _commit(api: Any, planned: UploadPlan, heads: list[str], progress: Progress | None) -> Pushed:
    """Try once; `heads` takes the commit that was found, the first of them being the one before this upload."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    kind = planned.kind
    repo = planned.repository if "/" in planned.repository else f"{api.whoami()['name']}/{planned.repository}"
    url = _url(api.endpoint, repo, kind)
    info = _ensured(api, repo, kind, planned.private)
    heads.append(info.sha)
    done, operations = 0, []
    if dataset.MANIFEST in planned.files:  # files of another set would be read beside this one's
        ours = {f"{split}.{format}" for split in dataset.SPLITS for format in dataset.FORMATS} | {*AUDITED}
        there = {sibling.rfilename for sibling in info.siblings or ()}
        operations = [CommitOperationDelete(name) for name in sorted((there & ours) - planned.files.keys())]
    with contextlib.ExitStack() as stack:
        for name, (size, sha256) in planned.files.items():
            path = planned.folder / name
            try:  # opened here: the library sends a path by Xet, which not every Hub has
                addition = CommitOperationAdd(name, stack.enter_context(path.open("rb")))
            except OSError as error:
                raise ElleError(f"cannot read: {error.strerror}", where=str(path)) from error
            if addition.upload_info.sha256.hex() != sha256:
                raise ElleError("this file was changed while it was being sent", where=str(path), fix="push again")
            # One by one: what is sent stays on the Hub, whatever becomes of the next.
            api.preupload_lfs_files(repo, [addition], repo_type=kind, free_memory=False)
            operations.append(addition)
            done += size
            if progress:
                progress(done, planned.size)
        # With its parent named, a commit that the Hub takes up after its time-out cannot follow the next try's.
        options = {"commit_message": planned.message, "repo_type": kind, "parent_commit": info.sha}
        commit = api.create_commit(repo, operations, **options).oid
    if name := not_held(_listed(api, repo, kind), planned.files):
        raise ElleError("the Hub does not hold this file as it was sent", where=f"{url}: {name}", fix="push again")
    return Pushed(repo, url, commit, commit != heads[0], planned.private, len(planned.files), planned.size)


def ensure_uploaded(repo: str, kind: str, *, say: Say | None = None) -> None:
    """A private repository of that name, made where there is none; an ElleError where it is public."""
    _patiently(
        lambda api: _ensured(api, repo, kind, True), "the Hub did not make the repository", (repo, kind), say=say
    )


def not_held(held: Files, files: Files) -> str | None:
    """The first of `files` that a `listing` does not hold as it is."""
    for name, (size, sha256) in files.items():
        found, digest = held.get(name, (None, ""))
        if found != size or (len(digest) == 64 and digest != sha256):  # git's own digest of others is shorter
            return name
    return None


def listing(repo: str, kind: str) -> Files:
    """The files of a repository: name → (bytes, sha256 of an LFS file, git's SHA-1 of others); {}: no repository."""
    return _patiently(lambda api: _listed(api, repo, kind), "the Hub did not list its files", (repo, kind))


def _listed(api: Any, repo: str, kind: str) -> Files:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        entries = list(api.list_repo_tree(repo, recursive=True, repo_type=kind))
    except RepositoryNotFoundError:
        return {}
    return {e.path: (e.size, e.lfs.sha256 if e.lfs else e.blob_id) for e in entries if hasattr(e, "blob_id")}


def read_remote(repo: str, kind: str, name: str) -> bytes | None:
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

    return _patiently(content, "the Hub did not give the file", (repo, kind))


def download(repo: str, kind: str, pattern: str, folder: Path, *, say: Say | None = None) -> None:
    """The files of a repository whose names match `pattern`, into a folder."""
    _patiently(
        lambda api: api.snapshot_download(repo, repo_type=kind, allow_patterns=pattern, local_dir=folder),
        "the Hub did not give the files", (repo, kind), retries=8, say=say,
    )  # fmt: skip


def repository(repo: str | None, variable: str = "HF_DATASET_REPO") -> str:
    """The repository called `repo`, by default that of the environment variable; under HF_USERNAME, if that is set.

    Raises:
        ElleError: none is named, or the name is invalid.
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


def _url(endpoint: str, repo: str, kind: str) -> str:
    return f"{endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def _ensured(api: Any, repo: str, kind: str, private: bool) -> Any:
    """What the Hub knows of a repository, made where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.repo_info(repo, repo_type=kind)
    except RepositoryNotFoundError:
        api.create_repo(repo, repo_type=kind, private=private)
        info = api.repo_info(repo, repo_type=kind)
    if bool(info.private) != private:
        there, wanted = ("private", "public") if info.private else ("public", "private")
        raise ElleError(
            f"the repository exists and is {there}, and you asked for a {wanted} one; nothing was sent",
            where=_url(api.endpoint, repo, kind),
            fix=f"make it {wanted} in its settings, choose another --repo, or "
            + ("leave out --public" if info.private else "say --public"),
        )
    return info


class _Passing(Exception):
    """A failure that may pass, and the seconds that the Hub asks to wait (0: none)."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


def _patiently[T](
    attempt: Callable[[Any], T],
    what: str,
    where: tuple[str, str],
    retries: int = 5,
    timeout: float = 30.0,
    say: Say | None = None,
    until: float | None = None,
) -> T:
    """The result of `attempt(api)`, tried again as `send` does; where: repository and kind."""
    endpoint = secrets.address(os.environ.get("HF_ENDPOINT") or "https://huggingface.co", "the Hub's", "HF_ENDPOINT")
    tokens = f"{endpoint}/settings/tokens"
    token = secrets.secret("HF_TOKEN", "token for the Hub", f"export HF_TOKEN, one with write access ({tokens})")
    try:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise ElleError("huggingface_hub is not installed", where="elle data push", fix="run `make setup`") from error
    if constants.is_offline_mode():
        raise ElleError(
            "the Hub's library is set to stay offline",
            where="environment variable HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE)",
            fix="unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE, in a notebook restart the kernel, and push again",
        )
    logging.set_verbosity_error()
    constants.HF_HUB_DISABLE_TELEMETRY = True  # or it asks huggingface.co whom to name in it, whatever the endpoint
    api = HfApi(endpoint=endpoint, token=token, library_name="elle")
    for number in itertools.count(1):
        try:
            with _watched(timeout):
                return attempt(api)
        except Exception as error:
            failure = _meaning(error, _url(endpoint, *where), tokens, token)
        left = until - time.monotonic() if until else 0.0
        if not isinstance(failure, _Passing):
            if left <= 0:
                raise failure  # outside `except`: the library's error may quote the server, and that a secret
            failure = _Passing(failure.what)
        reason, wait = str(failure).replace(token, "…"), failure.wait
        wait = max(wait, FIRST_WAIT * 2 ** min(number - 1, 10) * random.uniform(0.5, 1.5))
        if left > 0:  # half of it: the last try is not long before the end
            wait = min(wait, LONGEST_WAIT, max(left / 2, FIRST_WAIT))
        elif number > retries or wait > LONGEST_WAIT:
            tries = "1 try" if number == 1 else f"{number} tries"
            asks = f"; it asks for a wait of {wait:.0f} s" if wait > LONGEST_WAIT else ""
            fix = "give the same command again later: it goes on, and nothing is lost"
            raise ElleError(f"{what}: {reason}, {tries}{asks}", where=endpoint, fix=fix)
        if say:
            say(f"the Hub: {reason}; again in {wait:.1f} s (try {number + 1})")
        time.sleep(wait)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _watched(timeout: float) -> Iterator[None]:
    """End huggingface_hub's requests after so many seconds of silence, and raise `_Passing` for what may pass.

    By itself the library waits without end for some answers, and tries some requests again and not others, after a wait
    as long as a server asks for.
    """
    import httpx
    from huggingface_hub import utils

    client = utils.get_session()
    send = client.send

    def watched(request: httpx.Request, **options: Any) -> httpx.Response:
        request.extensions["timeout"] = httpx.Timeout(timeout).as_dict()
        try:
            response = send(request, **options)
        except httpx.TimeoutException as error:
            raise _Passing(f"no answer within {timeout:g} s") from error
        except httpx.TransportError as error:
            raise _Passing(f"the connection failed ({error})") from error
        status = response.status_code
        if status in (408, 412, 429) or status >= 500:
            limit = utils.parse_ratelimit_headers(response.headers)
            reset = limit.reset_in_seconds if limit and limit.remaining == 0 else 0
            after = response.headers.get("Retry-After", "")
            reason = f"it answered {status} {response.reason_phrase}".rstrip()
            changed = "the repository was changed at the same time"
            raise _Passing(changed if status == 412 else reason, max(reset, float(after) if after.isdigit() else 0.0))
        return response

    client.send = watched
    try:
        yield
    finally:
        del client.send


def _meaning(error: BaseException, where: str, tokens: str, token: str) -> _Passing | ElleError:
    """What a failed attempt means. Nothing of it quotes the token, whatever the server said."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    causes = [error]
    while causes[-1].__cause__:  # the library wraps what fails in its threads
        causes.append(causes[-1].__cause__)
    for cause in causes:
        if isinstance(cause, (_Passing, ElleError)):
            return cause
    answer = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if answer is None:
        if not isinstance(error, (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, RuntimeError)):
            raise error
        reason = f"{type(error).__name__}: {error}".replace(token, "…")
        return ElleError(f"the Hub's answer cannot be used: {reason}", where=where, fix="is this address a Hub's?")
    status, message = answer.response.status_code, (answer.server_message or "").replace(token, "…")
    what, fix = {
        401: ("the Hub does not accept the token", f"export one that is valid and may write ({tokens})"),
        403: (
            "the token may not write to this repository",
            f"export HF_TOKEN, one with write access to that account ({tokens})",
        ),
        409: (
            "the repository exists and this token may not see it, or it is being changed",
            "choose another --repo, or push again",
        ),
    }.get(status, (f"the Hub refuses with {status}", "check the repository's name"))
    if status == 401:
        where = "environment variable HF_TOKEN"
    return ElleError(f"{what} (it said: {message})" if message else what, where=where, fix=fix)
