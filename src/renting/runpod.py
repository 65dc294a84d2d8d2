"""RunPod: pods, serverless jobs and endpoints, by its REST API v2 (`/v2/pods`, `/v2/serverless`, `/v2/catalog`) and the
queue's own routes (`/v2/{endpoint}/run` …).

A thin client on httpx, not the `runpod` SDK: 1.12.0 speaks GraphQL for pods and endpoints and has no REST v2 route,
logs or catalogue; and it does not install beside the lock (it wants other versions of fastapi, typer, tomlkit, botocore
and python-dotenv, and 31 packages, sentry-sdk among them).

What is sent is a `Request`, which can be shown before it goes. In it a secret is its environment variable's name
(`$RUNPOD_API_KEY`, `$HF_TOKEN`); the value takes its place at the moment of sending, and nothing that comes back is
shown with one.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from elle.base import patience, secrets
from elle.base.errors import ElleError
from elle.base.patience import Again, Say

#: Environment variables that say where the two services are, and where they are without them.
REST, QUEUE = "RUNPOD_REST_URL", "RUNPOD_ENDPOINT_BASE_URL"
DEFAULTS = {REST: "https://api.runpod.io/v2", QUEUE: "https://api.runpod.ai/v2"}
KEY = "RUNPOD_API_KEY"
#: States of a pod in which it costs money, or soon does; and those of a job that has ended.
ALIVE = ("PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
#: Seconds of an answer's silence, and tries after the first.
TIMEOUT, RETRIES = 30.0, 5


class Refused(ElleError):
    """RunPod's refusal, with its HTTP `status`."""

    status = 0


def base_url(service: str) -> str:
    """The base URL of REST or QUEUE."""
    return secrets.address(os.environ.get(service) or DEFAULTS[service], "RunPod's", service)


@dataclass(frozen=True)
class Request:
    """What is to be sent: to `path` of a `service` (REST or QUEUE). repeatable: sending it twice does no harm."""

    method: str
    service: str
    path: str
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True

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
            lines += ["", json.dumps(_shortened(self.body), indent=2, ensure_ascii=False)]
        return "\n".join(lines)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, str) and value.count("\n") > 3:
        return f"{value.partition(chr(10))[0]} … ({len(value.splitlines())} lines)"
    return value


def _filled(value: Any) -> Any:
    """A body with the secrets that its "$NAME" stand for (an empty one where the variable is not set)."""
    if isinstance(value, dict):
        return {key: _filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    if isinstance(value, str) and value.startswith("$") and value[1:] in secrets.SECRETS:
        return os.environ.get(value[1:], "").strip()
    return value


# ---- the requests


def list_pods() -> Request:
    return Request("GET", REST, "/pods")


def create_pod(body: dict) -> Request:
    return Request("POST", REST, "/pods", body, repeatable=False)


def get_pod(pod: str) -> Request:
    return Request("GET", REST, f"/pods/{pod}")


def terminate_pod(pod: str) -> Request:
    return Request("DELETE", REST, f"/pods/{pod}")


def list_gpus(count: int = 1, cloud: str = "SECURE", product: str = "POD", cuda: str = "") -> Request:
    query = {"include": "AVAILABILITY", "product": product, "count": str(count), "cloud": cloud}
    return Request("GET", REST, "/catalog/gpus", query=query | ({"minCudaVersion": cuda} if cuda else {}))


def find_secret(name: str) -> Request:
    return Request("GET", REST, "/account/secrets", query={"name": name})


def create_secret(name: str) -> Request:
    """Keeps HF_TOKEN as a secret of the account, for pods and workers to refer to."""
    body = {"name": name, "value": "$HF_TOKEN", "description": "elle: read and write the runs' repositories"}
    return Request("POST", REST, "/account/secrets", body)  # a second one of the name is refused with 409


def secret_reference(name: str) -> str:
    """What stands for an account secret in an environment; RunPod puts the value in when the container boots."""
    return f"{{{{ RUNPOD_SECRET_{name} }}}}"


def list_endpoints() -> Request:
    return Request("GET", REST, "/serverless")


def create_endpoint(body: dict) -> Request:
    return Request("POST", REST, "/serverless", body, repeatable=False)


def run_job(endpoint: str, body: dict) -> Request:
    return Request("POST", QUEUE, f"/{endpoint}/run", body, repeatable=False)


class Client:
    """The requests, sent. Those that do no harm twice are tried again after a time-out, 429 and 5xx.

    Raises (each method):
        Refused: RunPod refuses (401: the key; 402: the balance; 404: no such thing).
        ElleError: no key, no answer after all tries, or an answer that is none.
    """

    def __init__(self, *, timeout: float = TIMEOUT, retries: int = RETRIES, say: Say | None = None):
        self.timeout, self.retries, self.say = timeout, retries, say
        self._connections: Any = None

    @property
    def http(self) -> Any:
        """Made once: it reads all the machine's certificates."""
        import httpx

        if self._connections is None:
            self._connections = httpx.Client(timeout=self.timeout)
        return self._connections

    def send(self, request: Request) -> Any:
        """The answer's JSON (None where it has no body; text where it is a stream of events)."""
        import httpx

        url = request.url
        key = secrets.secret(
            KEY, "key for RunPod", "export RUNPOD_API_KEY (the console: Settings, API keys; write access)"
        )
        headers = request.headers | {"Authorization": f"Bearer {key}"}

        def attempt() -> Any:
            return _answered(url, self.http.request(request.method, url, headers=headers, json=_filled(request.body)))

        def read(error: Exception) -> Again | ElleError:
            if isinstance(error, ElleError):
                return error
            if not isinstance(error, (Again, httpx.TransportError)):
                return _unusable(url, error)
            again = error if isinstance(error, Again) else _lost(error, self.timeout)
            if request.repeatable or isinstance(again, _NotDone):
                return again
            return Unknown(
                f"RunPod's answer to {request.method} {request.path} did not come: {again.reason}",
                where=url,
                fix="it may have been done all the same: ask for the status before giving the command again",
            )

        return patience.patiently(
            attempt,
            read=read,
            retries=self.retries,
            who="RunPod",
            what="RunPod did not answer",
            where=url,
            fix="check the connection, then give the same command again",
            say=self.say,
        )

    # ---- pods

    def pods(self, name: str | None = None) -> list[dict]:
        """All pods of the account, or those of a name."""
        found = self.send(list_pods())["pods"]
        return [pod for pod in found if name is None or pod["name"] == name]

    def pod(self, pod: str) -> dict | None:
        """A pod; None where there is none (any more)."""
        try:
            found = self.send(get_pod(pod))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return None if found["status"] == "TERMINATED" else found

    def create_pod(self, body: dict) -> dict:
        """The pod of the name in `body`, made where there is none; never a second one.

        A create whose answer is lost may have been done: the next try looks for the pod's name first, and what turns up
        beside the one that is kept is terminated.
        """
        return self._once(create_pod(body), lambda: self.pods(body["name"]), self.terminate)

    def _once(self, request: Request, find: Any, remove: Any) -> dict:
        lost = None
        for _ in range(self.retries + 1):
            if found := find():
                break
            try:
                found = [self.send(request)]
                break
            except Unknown as error:
                lost = error
                time.sleep(patience.FIRST_WAIT)
        else:
            raise lost or AssertionError("unreachable")
        if lost:  # an earlier try may have been taken up after it was given up
            kept = found[0]["id"]
            for other in find():
                if other["id"] != kept:
                    remove(other["id"])
        return found[0]

    def logs(self, pod: str, tail: int = 100) -> list[str]:
        """The last lines of a pod's container, without secrets. The stream does not end by itself: what has come when
        it pauses is what there is."""
        import httpx

        key = secrets.secret(KEY, "key for RunPod", "export RUNPOD_API_KEY")
        request = Request("GET", REST, f"/pods/{pod}/logs", query={"source": "container", "tail": str(tail)})
        lines: list[str] = []
        patient = httpx.Timeout(self.timeout, read=min(self.timeout, 5.0))
        try:
            headers = {"Authorization": f"Bearer {key}"}
            with self.http.stream("GET", request.url, headers=headers, timeout=patient) as answer:
                if answer.status_code != 200:
                    answer.read()
                    _answered(request.url, answer)
                for event in _events(answer.iter_lines()):
                    lines.append(event)
                    if len(lines) >= tail:
                        break
        except httpx.TransportError as error:
            if not lines and not isinstance(error, httpx.ReadTimeout):
                raise ElleError(
                    f"no log: {_lost(error, self.timeout).reason}", where=request.url, fix="ask again"
                ) from None
        except Again as again:
            raise ElleError(f"no log: {again.reason}", where=request.url, fix="ask again later") from None
        return [secrets.redacted(line) for line in lines]

    def stop(self, pod: str) -> dict:
        """Stop a pod: its GPU is given back, its disk is kept and goes on to cost."""
        return self.send(Request("POST", REST, f"/pods/{pod}/action", {"action": "stop"}))

    def terminate(self, pod: str) -> None:
        """End a pod for good, its disk with it; one that is gone already is no failure."""
        try:
            self.send(terminate_pod(pod))
        except Refused as refused:
            if refused.status != 404:
                raise

    def gpus(self, count: int = 1, cloud: str = "SECURE", product: str = "POD", cuda: str = "") -> dict:
        """The catalogue: `{"gpus": [{"id", "price", "availability", …}]}`, dollars an hour of one GPU."""
        return self.send(list_gpus(count, cloud, product, cuda))

    def ensure_secret(self, name: str) -> None:
        """An account secret of that name that holds HF_TOKEN, made where there is none."""
        if self.send(find_secret(name))["secrets"]:
            return
        try:
            self.send(create_secret(name))
        except Refused as refused:
            if refused.status != 409:  # 409: it is there; an earlier try made it
                raise

    # ---- serverless jobs

    def run(self, endpoint: str, body: dict) -> dict:
        """Queue a job: `{"id", "status"}`. Never sent twice: jobs have no names to look for.

        Raises:
            Unknown: its answer was lost; it may run.
        """
        return self.send(run_job(endpoint, body))

    def job(self, endpoint: str, job: str) -> dict | None:
        """A job; None where it is forgotten (results are kept for 30 minutes)."""
        try:
            return self.send(Request("GET", QUEUE, f"/{endpoint}/status/{job}"))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def cancel(self, endpoint: str, job: str) -> dict:
        return self.send(Request("POST", QUEUE, f"/{endpoint}/cancel/{job}"))

    def health(self, endpoint: str) -> dict:
        """`{"jobs": {…}, "workers": {…}}`, counts by state."""
        return self.send(Request("GET", QUEUE, f"/{endpoint}/health"))

    # ---- endpoints

    def endpoints(self, name: str | None = None) -> list[dict]:
        found = self.send(list_endpoints())["endpoints"]
        return [each for each in found if name is None or each["name"] == name]

    def create_endpoint(self, body: dict) -> dict:
        """The endpoint of the name in `body`, made where there is none; never a second one."""
        return self._once(create_endpoint(body), lambda: self.endpoints(body["name"]), self.delete_endpoint)

    def update_endpoint(self, endpoint: str, changes: dict) -> dict:
        """Change an endpoint, such as `{"workers": {"min": 0, "max": 3}}`."""
        return self.send(Request("PATCH", REST, f"/serverless/{endpoint}", changes))

    def delete_endpoint(self, endpoint: str) -> None:
        """Delete an endpoint; one that is gone already is no failure."""
        try:
            self.send(Request("DELETE", REST, f"/serverless/{endpoint}"))
        except Refused as refused:
            if refused.status != 404:
                raise


class Unknown(ElleError):
    """The answer to a request that must not be sent twice was lost."""


class _NotDone(Again):
    """A failure before anything was done."""


def _answered(url: str, answer: Any) -> Any:
    status = answer.status_code
    if status in (408, 429) or status >= 500:
        wait = patience.seconds(answer.headers.get("Retry-After", ""))
        raise (_NotDone if status == 429 else Again)(f"it answered {status}", wait)
    if status >= 400:
        raise _refusal(status, url, answer)
    if status == 204 or not answer.content:
        return None
    try:
        return answer.json()
    except ValueError as error:
        raise _unusable(url, error) from None


def _refusal(status: int, url: str, answer: Any) -> Refused:
    try:
        content = answer.json()
        said = str(content.get("detail") or content.get("error") or content.get("message") or "")
        said += "".join(f"; {each}" for each in content.get("errors") or [])
    except (ValueError, AttributeError, TypeError):
        said = ""
    said = f" (it said: {secrets.redacted(said)[:500]})" if said else ""
    fixes = {
        401: ("RunPod does not accept the key", f"export {KEY}, a valid one (the console: Settings, API keys)"),
        402: ("the RunPod account's balance is too low", "add credit in the console, then give the command again"),
        403: ("the key may not do this", f"export {KEY}, one with write access"),
        404: ("RunPod has no such thing", "see `elle pod status`"),
    }
    what, fix = fixes.get(status, (f"RunPod refuses with {status}", "its own words say why"))
    refused = Refused(f"{what}{said}", where=f"environment variable {KEY}" if status == 401 else url, fix=fix)
    refused.status = status
    return refused


def _lost(error: Exception, timeout: float) -> Again:
    import httpx

    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return _NotDone("no connection")
    late = isinstance(error, httpx.TimeoutException)
    return Again(f"no answer within {timeout:g} s" if late else f"the connection failed ({type(error).__name__})")


def _unusable(url: str, error: Exception) -> ElleError:
    said = secrets.redacted(f"{type(error).__name__}: {error}")
    return ElleError(f"RunPod's answer cannot be used: {said}", where=url, fix="is this address RunPod's?")


def _events(lines: Iterator[str]) -> Iterator[str]:
    """The log lines of a stream of server-sent events."""
    for line in lines:
        if line.startswith("data:"):
            try:
                yield str(json.loads(line[5:])["line"])
            except (ValueError, KeyError, TypeError):
                continue
