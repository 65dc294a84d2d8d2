"""A vLLM endpoint on RunPod, rendered from `configs/vllm_deploy.json`: created, changed where it exists, deleted."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elle.base.errors import ElleError
from elle.base.yaml_files import config_table
from elle.plan import hardware
from elle.serving import deployments as serving
from renting import record as records
from renting import runpod
from renting.record import Confirm, Rental, Say, Status

#: RunPod's vLLM worker; GB of its disk beyond the weights, and for weights of a model that nothing here knows.
IMAGE, DISK, UNKNOWN = "runpod/worker-v1-vllm:v2.27.2", 30, 200
CONFIG = "configs/vllm_deploy.json"


@dataclass(frozen=True)
class EndpointOrder:
    """What `deploy` would send. hourly: dollars of one worker that runs, by the list price of a pod."""

    name: str
    deployment: serving.Deployment
    body: Mapping[str, Any]
    secret: str
    hourly: float

    def requests(self) -> list[runpod.Request]:
        return [
            runpod.find_secret(self.secret),
            runpod.create_secret(self.secret),
            runpod.list_endpoints(),
            self.request,
        ]

    @property
    def request(self) -> runpod.Request:
        return runpod.create_endpoint(dict(self.body))

    def text(self) -> str:
        workers, chosen = self.body["workers"], self.deployment
        return "\n".join(
            [
                f"endpoint  {self.name}: {chosen.model_id} as {chosen.served_name!r}"
                + "".join(f", {name} = {place}" for name, place in chosen.adapters.items()),
                f"workers   {workers['min']} to {workers['max']} of {chosen.gpus} x {chosen.gpu}, idle ones end after "
                f"{workers['idleTimeout']} s",
                f"price     about ${self.hourly:.2f} an hour and worker that runs"
                + ("; none runs while nobody asks" if not workers["min"] else f"; {workers['min']} always do"),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "hourly": self.hourly, "request": self.request.to_json()}


def endpoint(
    model: str | None = None,
    *,
    config: Path | str = CONFIG,
    adapters: list[str] | None = None,
    name: str = "elle",
    workers: tuple[int, int] | None = None,
) -> EndpointOrder:
    """Render a deployment as an endpoint; nothing is sent.

    Args:
        model: a model of the Hub, in place of the file's. adapters: NAME=REPOSITORY. workers: (least, most).

    Raises:
        ElleError: the deployment is faulty or does not fit its GPU.
    """
    name = records.checked_id(name)
    deployment = serving.with_adapters(serving.load_deployment(config, {"model_id": model}), adapters or [])
    serving.check_fit(deployment)
    rendered = serving.render_endpoint(deployment)
    if workers is not None:
        rendered["workers"] |= {"min": workers[0], "max": workers[1]}
    row = config_table("gpus")["gpus"][deployment.gpu]
    # An endpoint takes a pool of GPUs; of a pool's other kinds nothing was checked, but they are no smaller.
    gpu = {"pools": [row["pool"]], "count": rendered["gpu"]["count"]}
    secret = records.token_secret()
    body = {
        "name": f"elle-{name}",
        "type": "QUEUE",
        "image": IMAGE,
        "gpu": gpu,
        "disk": DISK + _disk(deployment),
        "env": serving.render_worker(deployment) | {"HF_TOKEN": runpod.secret_reference(secret)},
        "workers": rendered["workers"],
        "scaling": rendered["scaling"],
    }
    hourly = hardware.hourly(hardware.find(deployment.gpu, deployment.gpus))[1]
    return EndpointOrder(name, deployment, body, secret, hourly)


def _disk(deployment: serving.Deployment) -> int:
    """GB for the weights."""
    from elle.plan import models

    try:
        model = models.find(deployment.model_id)
    except ElleError:
        model = None
    return round(2 * model.parameters / 1e9) + 1 if model else UNKNOWN


def deploy(
    order: EndpointOrder,
    *,
    confirm: Confirm,
    dry_run: bool = False,
    say: Say = print,
    client: runpod.Client | None = None,
) -> Status:
    """Create the endpoint, or change the one of its name; workers start when it is asked.

    Raises:
        ElleError: something is not set or not confirmed; RunPod refuses.
    """
    if dry_run:
        return Rental(order.name, "endpoint", f"elle-{order.name}").status("dry-run")
    records.needed("RUNPOD_API_KEY", "HF_TOKEN")
    records.confirmed(confirm, f"{order.text()}\n\nDeploy it?", "elle pod deploy")
    client = client or runpod.Client(say=say)
    known = order.name in records.rented_runs(("endpoint",))
    record = records.load_rental(order.name) if known else records.begin(order.name, "endpoint", hourly=order.hourly)
    client.ensure_secret(order.secret)
    record.save(state="asked", asked=time.time(), ended=None)
    try:
        if found := client.endpoints(record.name):
            changes = {key: order.body[key] for key in ("image", "env", "workers", "scaling", "disk")}
            made = client.update_endpoint(found[0]["id"], changes)
        else:
            made = client.create_endpoint(dict(order.body))
    except runpod.Refused as refused:
        record.settle("refused", refused.what)
        raise
    record.save(state="deployed", id=made["id"], rented=time.time(), remark=openai_base_url(made["id"]))
    return record.status()


def openai_base_url(endpoint_id: str) -> str:
    """Where an OpenAI client asks an endpoint; the key is RUNPOD_API_KEY."""
    return f"{runpod.base_url(runpod.QUEUE)}/{endpoint_id}/openai/v1"


def endpoint_status(record: Rental, client: runpod.Client) -> Status:
    """Whether the endpoint is there, and what its workers do."""
    if record.state in records.FINAL:
        return record.status()
    try:
        found = client.endpoints(record.name)
        if not found:
            return record.settle("stopped")
        record.save(state="deployed", id=found[0]["id"])
        workers = client.health(found[0]["id"]).get("workers", {})
    except ElleError as error:
        return record.status("unreachable", error.what)
    said = ", ".join(f"{count} {state}" for state, count in workers.items() if count) or "none running"
    return record.status(remark=f"{openai_base_url(found[0]['id'])} (workers: {said})")


def delete(record: Rental, client: runpod.Client) -> Status:
    """Delete every endpoint of the name; safe to repeat."""
    for found in client.endpoints(record.name):
        client.delete_endpoint(found["id"])
    return record.settle("stopped")
