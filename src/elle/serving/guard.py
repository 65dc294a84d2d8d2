"""The check before every route of a vLLM server: an ASGI middleware, which vLLM's `--middleware` puts before its own.

vLLM's own check of the key covers four prefixes (/v1 is one), and no OPTIONS: anyone could generate by /invocations.
Here load balancers (/health) and Prometheus need none. It runs in vLLM's process, and imports what comes with vLLM.
"""

import hmac
import os
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse


class Guard(TrustedHostMiddleware):
    """Lets a request on to `app` by its Origin (else 403: another's page asked), by the key of VLLM_API_KEY, where one
    is set (401), and by its Host, which must be one of ELLE_SERVER_HOSTS, parted by commas (400: DNS rebinding)."""

    def __init__(self, app: Any):
        super().__init__(app, os.environ["ELLE_SERVER_HOSTS"].split(","), www_redirect=False)
        self.key = os.environ.get("VLLM_API_KEY", "").strip().encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status, why = (0, "") if scope["type"] == "lifespan" else self._fault(scope)
        answer = JSONResponse({"error": {"message": why, "code": status}}, status) if status else super().__call__
        await answer(scope, receive, send)

    def _fault(self, scope: Any) -> tuple[int, str]:
        headers = Headers(scope=scope)
        origin, host = headers.get("origin"), headers.get("host")
        if origin not in (None, f"http://{host}", f"https://{host}"):
            return 403, "a page of another origin asked"
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = scheme.lower() == "bearer" and hmac.compare_digest(given.encode("latin-1"), self.key)
        open_to_all = not self.key or (scope["type"] == "http" and scope["path"] in ("/health", "/metrics"))
        return (0, "") if open_to_all or right else (401, "the key is missing or wrong")
