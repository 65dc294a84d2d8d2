"""How an app reaches a deployed Elle: by the source plans' environment variables, through the `openai` client."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from elle.base import secrets
from elle.base.errors import ElleError
from renting.endpoints import CONFIG, EndpointOrder, endpoint, openai_base_url
from renting.orders import Order

#: The source plans' environment variables: where the app asks, with which key, for which model, and whether it asks
#: Elle before its other API.
ENDPOINT, KEY, MODEL, PREFER = "LFBM_ENDPOINT", "LFBM_API_KEY", "LFBM_MODEL", "PREFER_LFBM"


@dataclass(frozen=True)
class App:
    """What an app must know. endpoint: the base URL, with its `/v1`; model: its name in requests."""

    endpoint: str
    model: str

    @classmethod
    def of(cls, order: EndpointOrder, endpoint_id: str) -> "App":
        """The app of a deployed endpoint. Where an adapter is served it is the model: by the base's name the untrained
        base would answer."""
        served_names = [*order.deployment.adapters, order.deployment.served_name]
        return cls(openai_base_url(endpoint_id), served_names[0])

    def variables(self) -> str:
        """The lines of an app's environment; the key is named, not shown."""
        return f"{ENDPOINT}={self.endpoint}\n{KEY}=$RUNPOD_API_KEY\n{MODEL}={self.model}\n{PREFER}=true"

    def client(self, *, dry_run: bool = False, say: Callable[[str], None] = print) -> Any:
        """An `openai.OpenAI` client of the endpoint, with the key that belongs there (`secrets.key_for`). In a dry run
        it needs no key and sends nothing: `say` gets what it would send, and the answer says that there is none.

        Raises:
            ElleError: there is no key, or a key may not go to this address.
        """
        from openai import DefaultHttpxClient, OpenAI

        from elle.serving.client import connected

        address = secrets.address(self.endpoint, "the endpoint's", ENDPOINT)
        if not dry_run:
            if not (key := secrets.key_for(address)):
                fix = f"export {KEY}, and {ENDPOINT} where the address is not RunPod's"
                raise ElleError("no key belongs to this address; nothing was sent", where=address, fix=fix)
            return connected((OpenAI, DefaultHttpxClient), address, key, timeout=300.0)

        def answer(request: httpx.Request) -> httpx.Response:
            body = json.loads(request.content).items()
            lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in body)
            head = f"{request.method} {request.url}\nAuthorization: {request.headers['Authorization']}"
            say(f"{head}\n\n{{\n{lines}\n}}")
            message = {"role": "assistant", "content": "(dry run: nothing was sent)"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            answer = {"id": "dry-run", "object": "chat.completion", "created": 0, "model": self.model}
            return httpx.Response(200, json=answer | {"choices": [choice]})

        nowhere = httpx.Client(transport=httpx.MockTransport(answer))
        return OpenAI(base_url=address, api_key=f"${KEY}", http_client=nowhere)


def served(order: Order, config: str = CONFIG, name: str = "elle-trained") -> dict[str, Any]:
    """How `renting.endpoint` is to serve what an order trains (its last recipe): an adapter called `name` beside its
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
