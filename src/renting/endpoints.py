"""A vLLM endpoint on RunPod, rendered from `configs/vllm_deploy.json`: created, or changed where it exists."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elle.base.yaml_files import config_table
from elle.plan import hardware, models
from elle.serving import deployments
from renting import lifecycle, runpod
from renting import record as records
from renting.pods import ended_on_failure
from renting.record import Confirm, Rental, Say

#: RunPod's vLLM worker; GB of its disk beyond the weights, and for weights of a model that nothing here knows.
IMAGE, DISK, UNKNOWN = "runpod/worker-v1-vllm:v2.27.2", 30, 200
CONFIG = "configs/vllm_deploy.json"


@dataclass(frozen=True)
class EndpointOrder:
    """What `deploy` would send. hourly: dollars of one worker that runs, by the list price of a pod."""

    name: str
    deployment: deployments.Deployment
    body: Mapping[str, Any]
    hourly: float

    @property
    def request(self) -> runpod.Request:
        return runpod.create_rented("endpoint", self.body)

    def requests(self) -> list[runpod.Request]:
        found = runpod.list_rented("endpoint"), runpod.get_rented("endpoint", "{endpoint}")
        return [*runpod.keep_secret(records.token_secret()), found[0], self.request, *found]

    def uploads(self) -> list[dict[str, Any]]:
        """Nothing: a worker takes its model from the Hub."""
        return []

    def text(self) -> str:
        workers, served = self.body["workers"], self.deployment
        adapters = "".join(f", {name} = {place}" for name, place in served.adapters.items())
        idle = f"{workers['min']} always do" if workers["min"] else "none runs while nobody asks"
        return (
            f"endpoint  {self.name}: {served.model_id} as {served.served_name!r}{adapters}\n"
            f"workers   {workers['min']} to {workers['max']} of {served.gpus} x {served.gpu}, idle ones end after "
            f"{workers['idleTimeout']} s\n"
            f"price     about ${self.hourly:.2f} an hour and worker that runs; {idle}"
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
    deployment = deployments.load_deployment(config, {"model_id": model})
    deployment = deployments.with_adapters(deployment, adapters or [])
    deployments.check_fit(deployment)
    rendered = deployments.render_endpoint(deployment)
    if workers is not None:
        rendered["workers"] |= {"min": workers[0], "max": workers[1]}
    model = models.find(deployment.model_id)
    token = {"HF_TOKEN": runpod.secret_reference(records.token_secret())}
    body = {
        "name": f"elle-{name}-{{rental}}",
        "type": "QUEUE",
        "image": IMAGE,
        # An endpoint takes a pool of GPUs; of a pool's other kinds nothing was checked, but they are no smaller.
        "gpu": {"pools": [config_table("gpus")["gpus"][deployment.gpu]["pool"]], "count": rendered["gpu"]["count"]},
        "disk": DISK + (round(2 * model.parameters / 1e9) + 1 if model else UNKNOWN),
        "env": deployments.render_worker(deployment) | token,
        "workers": rendered["workers"],
        "scaling": rendered["scaling"],
    }
    hourly = hardware.hourly(hardware.find(deployment.gpu, deployment.gpus))[1]
    return EndpointOrder(name, deployment, body, hourly)


def deploy(order: EndpointOrder, *, confirm: Confirm, dry_run: bool = False, say: Say = print) -> Rental:
    """Create the endpoint, or change the one that this machine has under its name; workers start when it is asked. What
    is interrupted, or fails, while it is made is ended.

    Raises:
        ElleError: something is not set or not confirmed; RunPod refuses; another machine has one of this name.
    """
    if dry_run:
        return Rental(order.name, "endpoint", "dry-run")
    records.needed("RUNPOD_API_KEY", "HF_TOKEN")
    records.confirmed(confirm, f"{order.text()}\n\nDeploy it?", "elle pod deploy")
    client = runpod.Client(say=say)
    with records.beginning(order.name):
        record, found = records.rentals("endpoint").get(order.name), None
        if record and record.state not in records.FINAL:
            found, complete = lifecycle.recorded(record, client)
            if complete and not found:
                record.settle("stopped")
        client.ensure_secret(records.token_secret())
        if record and found:
            changes = {key: order.body[key] for key in ("image", "env", "workers", "scaling", "disk")}
            client.send(runpod.Request("PATCH", f"/serverless/{found['id']}", changes))  # refused, it stays as it was
        else:
            lifecycle.check_free("endpoint", order.name, client)
            record = records.begin(order.name, "endpoint", hourly=order.hourly, account=runpod.account())
            with ended_on_failure(record, client):
                found = lifecycle.make(record, client, {**order.body, "name": record.name})
                lifecycle.sift(record, client)
        rented = record.rented or time.time()
        return record.save(state="deployed", stop=False, rented=rented, remark=openai_base_url(found["id"]))


def openai_base_url(endpoint_id: str) -> str:
    """Where an OpenAI client asks an endpoint; the key is RUNPOD_API_KEY."""
    return f"{runpod.base_url(runpod.QUEUE)}/{endpoint_id}/openai/v1"


def look(record: Rental, client: runpod.Client) -> Rental:
    """Whether the endpoint is there, and what its workers do."""
    if record.state in records.FINAL or not record.creates:
        return record
    found, complete = lifecycle.recorded(record, client)
    if not found:
        return record.settle("stopped") if complete else record.seen("asked")
    id = found["id"]
    record.save(state="deployed")
    health = client.send(runpod.Request("GET", f"/{id}/health", service=runpod.QUEUE), holds="workers", of=dict)
    workers = ", ".join(f"{count} {state}" for state, count in health["workers"].items() if count)
    return record.seen("deployed", f"{openai_base_url(id)} (workers: {workers or 'none running'})")
