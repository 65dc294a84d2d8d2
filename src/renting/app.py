"""How an app reaches a deployed Elle: by the documents' environment variables, through the `openai` client."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from elle.base import secrets
from renting import EndpointOrder, Order, endpoint, openai_base_url
from renting.endpoints import CONFIG

#: The documents' environment variables: where the app asks, with which key, for which model, and whether it asks Elle
#: before its other API.
ENDPOINT, KEY, MODEL, PREFER = "LFBM_ENDPOINT", "LFBM_API_KEY", "LFBM_MODEL", "PREFER_LFBM"


@dataclass(frozen=True)
class App:
    """What an app must know. endpoint: the base URL, with its `/v1`; model: its name in requests."""

    endpoint: str
    model: str

    @classmethod
    def of(cls, order: EndpointOrder, endpoint_id: str) -> "App":
        """Of the endpoint that was deployed. Where an adapter is served it is the model: by the base's name the
        untrained base would answer."""
        served_names = [*order.deployment.adapters, order.deployment.served_name]
        return cls(openai_base_url(endpoint_id), served_names[0])

    def variables(self) -> str:
        """The lines of an app's environment; the key is named, not shown."""
        return f"{ENDPOINT}={self.endpoint}\n{KEY}=$RUNPOD_API_KEY\n{MODEL}={self.model}\n{PREFER}=true"

    def client(self, *, dry_run: bool = False, say: Callable[[str], None] = print) -> Any:
        """An `openai.OpenAI` client of the endpoint, with the key in LFBM_API_KEY, else in RUNPOD_API_KEY. In a dry run
        it needs no key and sends nothing: what it would send is said, and the answer says that there is none.

        Raises:
            ElleError: there is no key, or the address is none that a key may go to.
        """
        import httpx
        from openai import OpenAI

        def shown(request: httpx.Request) -> httpx.Response:
            body = (
                f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}"
                for k, v in json.loads(request.content).items()
            )
            head = f"{request.method} {request.url}\nAuthorization: {request.headers['Authorization']}"
            say("\n".join([head, "", "{", ",\n".join(body), "}"]))
            choice = {"index": 0, "finish_reason": "stop"}
            choice["message"] = {"role": "assistant", "content": "(dry run: nothing was sent)"}
            answer = {"id": "dry-run", "object": "chat.completion", "created": 0, "model": self.model}
            return httpx.Response(200, json=answer | {"choices": [choice]})

        address = secrets.address(self.endpoint, "the endpoint's", ENDPOINT)
        if dry_run:
            nowhere = httpx.Client(transport=httpx.MockTransport(shown))
            return OpenAI(base_url=address, api_key=f"${KEY}", http_client=nowhere)
        name = KEY if os.environ.get(KEY, "").strip() else "RUNPOD_API_KEY"
        key = secrets.secret(name, "RunPod key", f"export {KEY}")
        return OpenAI(base_url=address, api_key=key, timeout=300.0)


def served(order: Order, config: str = CONFIG, name: str = "elle-trained") -> dict[str, Any]:
    """How `deploy.endpoint` is to serve what an order trains (its last recipe): an adapter called `name` beside its
    base, or the whole model.

    Raises:
        ElleError: what it was trained from does not fit the GPU of the deployment.
    """
    plan, repository = order.plans[-1], order.repositories[-1]
    base = plan.config["base_model"]
    if plan.config.get("adapter"):
        return {"model": base, "adapters": [f"{name}={repository}"]}
    endpoint(base, config=config)  # the trained model is as large, and nothing here knows it by its own name
    return {"model": repository}
