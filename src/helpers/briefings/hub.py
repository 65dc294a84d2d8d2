"""A data set on the Hugging Face Hub: what would go (`plan`), and its going (`push`).

The token is read from `HF_TOKEN` at the moment of use. A set goes in one commit: the repository shows the old set or
the new one, never half. Calling again after a failure goes on: what the Hub holds already is not sent twice, and a set
that stands there unchanged makes no commit. Whether a set passed its audit is the caller's to find out, with
`evaluation.audit.verdict`, and to hand over.
"""

import contextlib
import io
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from helpers import jsonl
from helpers.briefings import dataset
from helpers.errors import ElleError

#: What the audit writes, and goes with a set: its findings, and the data card made from them.
AUDITED = ("audit.json", "README.md")
#: Seconds before the first new try; it doubles from try to try, give or take a half. The longest wait that is waited.
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class File:
    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Plan:
    """What would go: files of `folder`, to the dataset repository `repository` (no user in it: the token's own)."""

    folder: Path
    repository: str
    private: bool
    files: tuple[File, ...]

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
        lines = [f"{access} dataset repository {self.repository}{own}"]
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


def plan(
    folder: Path | str,
    repo: str | None = None,
    *,
    verdict: Sequence[str] | None,
    private: bool = True,
    force: bool = False,
) -> Plan:
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
    repository = _repository(repo)
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
        file = File(name, path.stat().st_size, jsonl.sha256(path))
        if hashes.get(name, file.sha256) != file.sha256:
            raise ElleError("this is not the file that the manifest describes", where=str(path), fix="make it anew")
        files.append(file)
    return Plan(folder, repository, private, tuple(files))


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
    planned = plan(folder, repo, verdict=verdict, private=private, force=force)
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
    message = message or f"Elle's briefings: {Path(folder).resolve().name}"
    jitter = random.Random()
    heads: list[str] = []
    with _session(timeout):
        for attempt in range(retries + 1):
            try:
                pushed = _attempt(api, planned, message, heads, progress)
                break
            except Exception as error:
                failure = _read(error, planned.repository, endpoint, token)
            if isinstance(failure, ElleError):
                raise failure  # outside `except`: the library's error may quote the server, and that the token
            wait = max(failure.wait, FIRST_WAIT * 2**attempt * jitter.uniform(0.5, 1.5))
            if attempt == retries or wait > LONGEST_WAIT:
                asks = f"; it asks for a wait of {failure.wait:.0f} s" if failure.wait > LONGEST_WAIT else ""
                raise ElleError(
                    f"the Hub did not take the set: {failure.reason}, {attempt + 1} tries{asks}",
                    where=endpoint,
                    fix="give the same command again later: it goes on, and nothing is lost",
                )
            if say:
                say(f"the Hub: {failure.reason}; again in {wait:.1f} s ({attempt + 1} of {retries})")
            time.sleep(wait)
    return pushed


def _repository(repo: str | None) -> str:
    name = repo or os.environ.get("HF_DATASET_REPO", "").strip()
    where = "--repo" if repo else "environment variable HF_DATASET_REPO"
    if not name:
        raise ElleError("no repository is named", where=where, fix="give --repo NAME, or set HF_DATASET_REPO")
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
    url = (endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ElleError(
            "the Hub's address must begin with https:// and hold no user: a token goes there",
            where="HF_ENDPOINT",
            fix="correct or unset it",
        )
    return url


def _token(endpoint: str) -> str:
    token = os.environ.get("HF_TOKEN", "").strip()
    where, fix = "environment variable HF_TOKEN", f"export HF_TOKEN, one with write access ({endpoint}/settings/tokens)"
    if not token:
        raise ElleError("no token for the Hub; nothing was sent", where=where, fix=fix)
    if not re.fullmatch(r"[!-~]+", token):  # the HTTP library would quote it in its complaint
        raise ElleError("the token for the Hub holds a character that no token has", where=where, fix=fix)
    return token


class _Again(Exception):
    """A failure that may pass: `reason` in words, and `wait`, the seconds that the server asks for (0: none)."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.reason, self.wait = reason, wait


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
                raise _Again(f"no answer within {timeout:g} s") from error
            except httpx.TransportError as error:
                raise _Again(f"the connection failed ({error})") from error
            if response.status_code in (408, 429) or response.status_code >= 500:
                limit = parse_ratelimit_headers(response.headers)
                reset = limit.reset_in_seconds if limit and limit.remaining == 0 else 0
                asked = max(_seconds(response.headers.get("Retry-After", "")), reset)
                raise _Again(f"it answered {response.status_code} {response.reason_phrase}".rstrip(), asked)
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


def _seconds(retry_after: str) -> float:
    """The wait that a `Retry-After` header asks for, in seconds or up to a date (RFC 9110, 10.2.3); 0: none."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _attempt(api: Any, planned: Plan, message: str, heads: list[str], progress: Progress | None) -> Pushed:
    """Try once; `heads` takes the commit that was found, the first of them being the one before this push."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    repo = planned.repository if "/" in planned.repository else f"{api.whoami()['name']}/{planned.repository}"
    try:
        info = api.repo_info(repo, repo_type="dataset")
    except HfHubHTTPError as error:
        if error.response.status_code != 404 and not isinstance(error, RepositoryNotFoundError):
            raise
        api.create_repo(repo, repo_type="dataset", private=planned.private)
        info = api.repo_info(repo, repo_type="dataset")
    if bool(info.private) != planned.private:
        there, asked = ("private", "public") if info.private else ("public", "private")
        raise ElleError(
            f"the repository exists and is {there}, and you asked for a {asked} one; nothing was sent",
            where=f"{api.endpoint}/datasets/{repo}",
            fix=f"make it {asked} in its settings, choose another --repo, or "
            + ("leave out --public" if info.private else "say --public"),
        )
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
            if file.name not in (
                dataset.MANIFEST,
                *AUDITED,
            ):  # one by one: what is sent stays on the Hub, whatever becomes of the next
                if progress:
                    reader.tell_progress = lambda at, before=done: progress(before + at, planned.size)
                api.preupload_lfs_files(repo, [addition], repo_type="dataset", free_memory=False)
                reader.tell_progress = None
                done += file.size
                if progress:
                    progress(done, planned.size)
            additions.append(addition)
        ours = {f"{split}.{format}" for split in dataset.SPLITS for format in dataset.FORMATS} | {*AUDITED}
        there = {sibling.rfilename for sibling in info.siblings or ()}
        of_another_set = sorted((there & ours) - {file.name for file in planned.files})
        deletions = [CommitOperationDelete(name) for name in of_another_set]
        # With its parent named, a commit that the Hub takes up after its time-out cannot follow the next try's.
        options = {"commit_message": message, "repo_type": "dataset", "parent_commit": info.sha}
        commit = api.create_commit(repo, [*additions, *deletions], **options)
    if progress:
        progress(planned.size, planned.size)
    url = f"{api.endpoint}/datasets/{repo}"
    return Pushed(repo, url, commit.oid, commit.oid != heads[0], planned.private, len(planned.files), planned.size)


def _read(error: Exception, repo: str, endpoint: str, token: str) -> _Again | ElleError:
    """What a failed attempt means. Nothing of it quotes the token, whatever the server said."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, _Again):
            cause.reason = cause.reason.replace(token, "…")
            return cause
        if isinstance(cause, ElleError):
            return cause
    where = f"{endpoint}/datasets/{repo}"
    answer = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if answer is None:
        if not isinstance(error, (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, RuntimeError)):
            raise error
        said = f"{type(error).__name__}: {error}".replace(token, "…")
        return ElleError(f"the Hub's answer cannot be used: {said}", where=where, fix="is this address a Hub's?")
    status, said = answer.response.status_code, (answer.server_message or "").replace(token, "…")
    if status == 412:
        return _Again("the repository was changed at the same time")
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
