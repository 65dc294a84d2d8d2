"""A local server that speaks other people's contracts, and fails as they do.

A service (`contract.hub.Hub`) is an object with `routes`; one server carries any number of them:

    with Server(hub := Hub()) as server:
        server.fail("commit", status=503)       # the next commit is answered 503, the one after it is taken
        ...                                     # talk to server.url
        assert server.count("commit") == 2

Faults and the record of requests are the server's, and so the same for every service.
"""

import contextlib
import http.server
import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    """A request as it came: `path` without the query and unquoted, `headers` with lower-case names."""

    route: str | None
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    base: str  # the server's URL

    def json(self) -> Any:
        return json.loads(self.body or b"null")

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Response:
    """`body`: bytes as they are, anything else as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Route(NamedTuple):
    """`pattern` matches a whole path; its named groups are `answer`'s keyword arguments."""

    name: str | None
    method: str
    pattern: str
    answer: Callable[..., Response]


@dataclass
class Fault:
    """What goes wrong when a request reaches `route` (None: any), after `after` that are served, `times` times.

    One of: `status` (with `headers` and `body`): the answer, and nothing is done (with `done` it is, all the same).
    `drop="request"`: half of the body is read, then the connection is reset, and nothing is done. `drop="answer"`: the
    request is done, and half of the answer comes. `drop="done"`: it is done, and no answer comes. `delay`: seconds
    before it is done and answered.
    """

    route: str | None = None
    status: int | None = None
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: str | None = None
    delay: float = 0.0
    after: int = 0
    times: float = 1
    done: bool = False


class Server:
    """Serves `services` on a free port of 127.0.0.1 inside a `with`; `requests` holds all that came, in order.
    alone: a service sees one request at a time."""

    def __init__(self, *services: Any, alone: bool = True):
        self.routes = [route for service in services for route in service.routes]
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.busy: set[_Handler] = set()  # those with a request that came and is not done with
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self.alone = self._lock if alone else contextlib.nullcontext()
        self.http = _Http(("127.0.0.1", 0), type("Handler", (_Handler,), {"contract": self}))
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def fail(self, route: str | None = None, **fault: Any) -> Fault:
        """Add a `Fault`; of several that fit a request, the first added strikes."""
        assert route is None or route in {each.name for each in self.routes}, f"there is no route {route!r}"
        self.faults.append(Fault(route, **fault))
        return self.faults[-1]

    def count(self, route: str) -> int:
        """How many requests have come to a route, failed ones included."""
        return sum(request.route == route for request in self.requests)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        for route in self.routes:
            if route.method == method and (match := re.fullmatch(route.pattern, path)):
                return route, match.groupdict()
        return Route(None, method, path, lambda _: Response(404, {"error": f"no route for {method} {path}"})), {}

    def strike(self, route: str | None) -> Fault:
        """The fault that this request meets (an empty one: none), used up by one."""
        with self._lock:
            for fault in self.faults:
                if fault.route in (None, route) and fault.times > 0:
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault
        return Fault()


class _Http(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that hangs up is no error here
            super().handle_error(request, address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    contract: Server

    def handle_any(self) -> None:
        self.contract.busy.add(self)
        try:
            self.respond()
        finally:
            self.contract.busy.discard(self)

    def respond(self) -> None:
        server, parts = self.contract, urlsplit(self.path)
        path, query = unquote(parts.path), {name: values[-1] for name, values in parse_qs(parts.query).items()}
        route, groups = server.find(self.command, path)
        fault = server.strike(route.name)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length // 2 if fault.drop == "request" else length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(route.name, self.command, path, query, headers, body, server.url)
        server.requests.append(request)
        server.closing.wait(fault.delay)
        if fault.drop == "request":
            return self.reset()
        refusal = fault.status and Response(fault.status, fault.body, fault.headers)
        with server.alone:
            done = None if refusal and not fault.done else route.answer(request, **groups)
            response = refusal or done
        if fault.drop == "done":
            return self.reset()
        content = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        length = max(len(content), 2 if fault.drop == "answer" else 0)  # of an empty answer, too, half can be missing
        self.send_response(response.status)
        kind = "application/octet-stream" if isinstance(response.body, bytes) else "application/json"
        for name, value in ({"Content-Type": kind, "Content-Length": str(length)} | {**response.headers}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        self.wfile.write(content[: length // 2] if fault.drop == "answer" else content)
        return self.reset() if fault.drop == "answer" else None

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def reset(self) -> None:
        """End the connection as a broken line does, without a farewell."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
