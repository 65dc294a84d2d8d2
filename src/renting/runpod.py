"""RunPod's REST API v2: pods and serverless endpoints, the catalogue, secrets and logs.

A thin client on httpx, not the `runpod` SDK: 1.12.0 speaks GraphQL for pods and endpoints, has no REST v2 route, logs
or catalogue, and does not install beside the lock.

What is sent is a `Request`, which can be shown before it goes. In it a secret is its environment variable's name
(`$RUNPOD_API_KEY`, `$HF_TOKEN`); the value takes its place at the moment of sending, and nothing that comes back is
shown with one.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
import tenacity

from elle.base import secrets
from elle.base.errors import ElleError

#: Environment variables that say where the two services are, and where they are without them.
REST, QUEUE = "RUNPOD_REST_URL", "RUNPOD_ENDPOINT_BASE_URL"
DEFAULTS = {REST: "https://api.runpod.io/v2", QUEUE: "https://api.runpod.ai/v2"}
KEY = "RUNPOD_API_KEY"
#: What can be rented, and its path; a list's answer has it under its plural ("pods", "endpoints").
PATHS = {"pod": "/pods", "endpoint": "/serverless"}
#: Seconds of an answer's silence, and tries after the first.
TIMEOUT, RETRIES = 30.0, 5
#: Seconds before the first new try (it doubles from try to try), and the longest wait that RunPod may ask for.
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0


class Refused(ElleError):
    """RunPod's refusal, with its HTTP `status`."""

    status = 0


class Unknown(ElleError):
    """The answer to a request was lost, or cannot be used: what was asked for may have been done."""


class _Passing(Exception):
    """A failure that may pass. wait: seconds that RunPod asks for; untouched: surely nothing was done."""

    def __init__(self, reason: str, *, wait: float = 0.0, untouched: bool = False):
        super().__init__(reason)
        self.wait, self.untouched = wait, untouched


def base_url(service: str) -> str:
    """The base URL of REST or QUEUE."""
    return secrets.address(os.environ.get(service) or DEFAULTS[service], "RunPod's", service)


def account() -> str:
    """A digest that tells the key and address in use from others, and gives away neither."""
    return hashlib.sha256(f"{os.environ.get(KEY, '').strip()} {base_url(REST)}".encode()).hexdigest()[:12]


def _replaced(value: Any, change: Callable[[str], str]) -> Any:
    """A body in which each text is what `change` makes of it."""
    if isinstance(value, dict):
        return {key: _replaced(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


def _shortened(text: str) -> str:
    """A text of many lines as its first."""
    lines = text.splitlines()
    return f"{lines[0]} … ({len(lines)} lines)" if text.count("\n") > 3 else text


def _filled(text: str) -> str:
    """The token that "$HF_TOKEN" stands for (an empty one where it is not set): no other secret is RunPod's to keep."""
    return os.environ.get("HF_TOKEN", "").strip() if text == "$HF_TOKEN" else text


@dataclass(frozen=True)
class Request:
    """What is to be sent: to `path` of a `service` (REST or QUEUE). repeatable: sending it twice does no harm."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    service: str = REST

    @property
    def url(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.query.items())
        return f"{base_url(self.service)}{self.path}" + (f"?{query}" if query else "")

    @property
    def headers(self) -> dict[str, str]:
        """With the key's name in place of the key."""
        kind = {} if self.body is None else {"Content-Type": "application/json"}
        return {"Authorization": f"Bearer ${KEY}", **kind}

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "url": self.url, "headers": self.headers, "body": self.body}

    def text(self) -> str:
        """For people; a text of many lines in the body is shown as its first."""
        lines = [f"{self.method} {self.url}", *(f"{name}: {value}" for name, value in self.headers.items())]
        if self.body is not None:
            lines += ["", json.dumps(_replaced(self.body, _shortened), indent=2, ensure_ascii=False)]
        return "\n".join(lines)


def list_rented(kind: str) -> Request:
    """All of a kind in the account, whatever their names."""
    return Request("GET", PATHS[kind])


def create_rented(kind: str, body: Mapping[str, Any]) -> Request:
    """Costs money from its answer on, and once more if it is sent once more."""
    return Request("POST", PATHS[kind], dict(body), repeatable=False)


def get_rented(kind: str, id: str) -> Request:
    """One of a kind: only this answer, 404, says that it is gone. A list lags behind."""
    return Request("GET", f"{PATHS[kind]}/{id}")


def list_gpus(count: int = 1, cloud: str = "SECURE", cuda: str = "") -> Request:
    """The catalogue: `{"gpus": [{"id", "price", "availability", …}]}`, dollars per hour of one GPU."""
    query = {"include": "AVAILABILITY", "product": "POD", "count": str(count), "cloud": cloud}
    return Request("GET", "/catalog/gpus", query=query | ({"minCudaVersion": cuda} if cuda else {}))


def keep_secret(name: str) -> tuple[Request, Request]:
    """To look for an account secret of that name, and to keep HF_TOKEN as it, for pods and workers to refer to."""
    body = {"name": name, "value": "$HF_TOKEN", "description": "elle: read and write the runs' repositories"}
    return Request("GET", "/account/secrets", query={"name": name}), Request("POST", "/account/secrets", body)


def secret_reference(name: str) -> str:
    """What stands for an account secret in an environment; RunPod puts the value in when the container boots."""
    return f"{{{{ RUNPOD_SECRET_{name} }}}}"


class Client:
    """The requests, sent. Those that do no harm twice are tried again after a time-out, 429 and 5xx.

    Raises (each method):
        Refused: RunPod refuses (401: the key; 402: the balance; 404: no such thing).
        ElleError: no key, no answer after all tries, or an answer that cannot be used.
    """

    def __init__(self, *, retries: int = RETRIES, say: Callable[[str], None] | None = None):
        self.retries, self.say = retries, say

    @cached_property
    def http(self) -> httpx.Client:
        """Made once: it reads all the machine's certificates."""
        return httpx.Client(timeout=TIMEOUT)

    def send(
        self, request: Request, *, allowed: tuple[int, ...] = (), holds: str = "", of: type = str,
        before: Callable[[], object] = lambda: None,
    ) -> Any:  # fmt: skip
        """The answer's JSON: where `holds` is given, an object with that key and a value of that type; None where it
        has no body, or is a refusal that is `allowed`. before: called before each try, and may raise to end them."""

        def pause(state: tenacity.RetryCallState) -> float:
            backoff = tenacity.wait_exponential_jitter(multiplier=FIRST_WAIT, max=LONGEST_WAIT, jitter=FIRST_WAIT)
            return max(state.outcome.exception().wait, backoff(state))

        def spent(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number > self.retries or state.outcome.exception().wait > LONGEST_WAIT

        def tell(state: tenacity.RetryCallState) -> None:
            which = f"{state.attempt_number} of {self.retries}"
            self.tell(f"RunPod: {state.outcome.exception()}; again in {state.upcoming_sleep:.1f} s ({which})")

        retry = tenacity.retry_if_exception_type(_Passing)
        retrying = tenacity.Retrying(retry=retry, wait=pause, stop=spent, before_sleep=tell, reraise=True)
        try:
            answer = retrying(lambda: (before(), self._exchange(request))[1])
            if holds and not (isinstance(answer, dict) and isinstance(answer.get(holds), of)):
                raise _unusable(request.url, KeyError(holds))
            return answer
        except Refused as refused:
            if refused.status in allowed:
                return None
            raise
        except _Passing as failure:
            tries = retrying.statistics["attempt_number"]
            asks = f"; it asks for a wait of {failure.wait:.0f} s" if failure.wait > LONGEST_WAIT else ""
            what = f"RunPod did not answer: {failure}, {tries} {'try' if tries == 1 else 'tries'}{asks}"
        raise ElleError(what, where=request.url, fix="check the connection, then give the same command again")

    def _exchange(self, request: Request) -> Any:
        """One try."""
        url, headers = request.url, _authorised(request)
        try:
            body = _replaced(request.body, _filled)
            return _answered(url, self.http.request(request.method, url, headers=headers, json=body))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            failure = _Passing("no connection", untouched=True)
        except httpx.TimeoutException:
            failure = _Passing(f"no answer within {TIMEOUT:g} s")
        except httpx.TransportError as error:
            failure = _Passing(f"the connection failed ({type(error).__name__})")
        except _Passing as error:
            failure = error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unusable(url, error) from None
        if request.repeatable or failure.untouched:
            raise failure
        raise Unknown(
            f"RunPod's answer to {request.method} {request.path} did not come: {failure}",
            where=url,
            fix="it may have been done all the same: ask for the status before giving the command again",
        )

    def tell(self, text: str) -> None:
        """Say it, where somebody listens: a terminal that is gone, or a signal amid another line, ends nothing."""
        with contextlib.suppress(OSError, RuntimeError):
            if self.say:
                self.say(text)

    def rented(self, kind: str) -> list[dict]:
        """All pods or endpoints that RunPod's list shows; one without a name has an empty one."""
        return [each | {"name": str(each.get("name") or "")} for each in self.listed(list_rented(kind), f"{kind}s")]

    def listed(self, request: Request, key: str) -> list[dict]:
        """The objects that an answer has under a key."""
        return [each for each in self.send(request, holds=key, of=list)[key] if isinstance(each, dict)]

    def end(self, kind: str, id: str) -> None:
        """End a pod (its disk with it) or an endpoint for good; one that is gone already is not a failure."""
        self.send(Request("DELETE", f"{PATHS[kind]}/{id}"), allowed=(404,))

    def get(self, kind: str, id: str) -> dict | None:
        """A pod or an endpoint; None where there is none (any more)."""
        found = self.send(get_rented(kind, id), allowed=(404,), holds="id")
        return found if found and found.get("status") != "TERMINATED" else None

    def logs(self, pod: str, tail: int = 100) -> list[str]:
        """The last lines of a pod's container, without secrets. The stream does not end by itself: what has come when
        it pauses is what there is."""
        request = Request("GET", f"/pods/{pod}/logs", query={"source": "container", "tail": str(tail)})
        headers, patient = _authorised(request), httpx.Timeout(TIMEOUT, read=5.0)
        lines: list[str] = []
        try:
            with self.http.stream("GET", request.url, headers=headers, timeout=patient) as answer:
                if answer.status_code != 200:
                    answer.read()
                    _answered(request.url, answer)
                for event in answer.iter_lines():
                    if event.startswith("data:"):
                        with contextlib.suppress(ValueError, KeyError, TypeError):  # an event that is not a line
                            lines.append(secrets.redacted(str(json.loads(event[5:])["line"])))
                    if len(lines) >= tail:
                        break
        except httpx.ReadTimeout:
            pass
        except (httpx.TransportError, _Passing) as error:
            if not lines:
                what = f"no log: {secrets.redacted(str(error))}"
                raise ElleError(what, where=request.url, fix="ask again later") from None
        return lines

    def ensure_secret(self, name: str) -> None:
        """An account secret of that name that holds HF_TOKEN, made where there is none."""
        find, create = keep_secret(name)
        if not self.listed(find, "secrets"):
            self.send(create, allowed=(409,))  # 409: it is there; an earlier try made it


def _authorised(request: Request) -> dict[str, str]:
    """The headers with the key in them."""
    fix = "export RUNPOD_API_KEY (the console: Settings, API keys; write access)"
    return request.headers | {"Authorization": f"Bearer {secrets.secret(KEY, 'key for RunPod', fix)}"}


def _answered(url: str, answer: httpx.Response) -> Any:
    status = answer.status_code
    if status in (408, 429) or status >= 500:
        asked = answer.headers.get("Retry-After", "").strip()
        wait = float(asked) if asked.isdecimal() else 0.0
        raise _Passing(f"it answered {status}", wait=wait, untouched=status == 429)
    if status >= 300:  # nothing follows a redirect: it would take the key along
        raise _refusal(status, url, answer)
    if status == 204 or not answer.content:
        return None
    try:
        return answer.json()
    except ValueError as error:
        raise _unusable(url, error) from None


def _refusal(status: int, url: str, answer: httpx.Response) -> Refused:
    message = ""
    with contextlib.suppress(ValueError, AttributeError, TypeError):  # a body of another shape
        content = answer.json()
        message = str(content.get("detail") or content.get("error") or content.get("message") or "")
        message += "".join(f"; {each}" for each in content.get("errors") or [])
    message = f" (it said: {secrets.redacted(message)[:500]})" if message else ""
    fixes = {
        401: ("RunPod does not accept the key", f"export {KEY}, a valid one (the console: Settings, API keys)"),
        402: ("the RunPod account's balance is too low", "add credit in the console, then give the command again"),
        403: ("the key may not do this", f"export {KEY}, one with write access"),
        404: ("RunPod has no such thing", "see `elle pod status`"),
    }
    what, fix = fixes.get(status, (f"RunPod refuses with {status}", "its own words say why"))
    refused = Refused(f"{what}{message}", where=f"environment variable {KEY}" if status == 401 else url, fix=fix)
    refused.status = status
    return refused


def _unusable(url: str, error: Exception) -> Unknown:
    message = secrets.redacted(f"{type(error).__name__}: {error}")
    return Unknown(f"RunPod's answer cannot be used: {message}", where=url, fix="is this address RunPod's?")
