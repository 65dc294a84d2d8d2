"""A training as a job of RunPod's Axolotl worker (llm-fine-tuning), on a serverless endpoint of your own.

The worker takes `input.run_id`, `input.args` (the Axolotl configuration) and `input.credentials`, and ignores how
Axolotl ends: a job that is COMPLETED may have failed. It counts once the model repository holds weights that were not
there before. The credentials travel in the request's body, for the worker reads them nowhere else; here they are
"$HF_TOKEN" and "$WANDB_API_KEY" until the moment of sending. No webhook is asked for: it would need an address of this
machine that RunPod can reach, and may come twice or never; the state is asked for instead.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elle import hub
from elle.base import paths, secrets, storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.plan import preflight
from elle.plan.preflight import Plan, span
from helpers.runs import planning
from renting import pods, runpod
from renting import record as records
from renting.record import Confirm, Rental, Say, Status

#: Milliseconds that a job may wait for a worker, and the longest that RunPod keeps one.
QUEUE, LONGEST = 3_600_000, 7 * 86_400_000


@dataclass(frozen=True)
class JobOrder:
    """What `submit` would send. hourly: dollars of a worker; limit_hours: RunPod ends the job then."""

    run_id: str
    plan: Plan
    data: Path
    endpoint: str
    hourly: float
    limit_hours: float
    max_dollars: float

    @property
    def hours(self) -> tuple[float, float]:
        return self.plan.budget.hours

    @property
    def request(self) -> runpod.Request:
        limit = min(LONGEST, round(self.limit_hours * 3_600_000))
        body = {
            "input": {
                "run_id": self.run_id,
                "credentials": {"hf_token": "$HF_TOKEN", "wandb_api_key": "$WANDB_API_KEY"},
                "args": arguments(self.plan, self.run_id),
            },
            "policy": {"executionTimeout": limit, "ttl": min(LONGEST, limit + QUEUE)},
        }
        return runpod.run_job(self.endpoint, body)

    def requests(self) -> list[runpod.Request]:
        return [self.request]

    def text(self) -> str:
        return "\n".join(
            [
                self.plan.short(),
                "",
                f"job      {self.run_id} on endpoint {self.endpoint}, RunPod's Axolotl worker",
                f"planned  {span(self.hours, 'h')}, at ${self.hourly:.2f} an hour",
                f"at most  ${self.max_dollars:.2f}: after {self.limit_hours:.2f} h RunPod ends it",
                f"data     {paths.shown(self.data)} -> {records.dataset_repository()} (private)",
                f"weights  -> {records.model_repository()} (private), pushed by the trainer, then looked for",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "endpoint": self.endpoint,
            "hourly": self.hourly,
            "hours": list(self.hours),
            "limit_hours": self.limit_hours,
            "max_dollars": round(self.max_dollars, 2),
            "request": self.request.to_json(),
        }


def arguments(plan: Plan, run_id: str) -> dict[str, Any]:
    """A recipe as the worker needs it: its data by the Hub, DeepSpeed's file within it, the weights to the Hub once.

    The worker sets `output_dir` itself.
    """
    config = {key: value for key, value in plan.config.items() if key not in ("output_dir", "hub_model_id")}
    sets = config.get("datasets") or [{}]
    where = {"path": records.dataset_repository(), "ds_type": "json"}
    first = {key: value for key, value in sets[0].items() if key not in ("path", "ds_type", "data_files")}
    config["datasets"] = [where | {"data_files": [f"runs/{run_id}/data/train.jsonl"]} | first]
    if config.pop("test_datasets", None):
        config["val_set_size"] = 0.05
    if isinstance(zero := config.get("deepspeed"), str):
        config["deepspeed"] = storage.read_json(paths.located(zero))
    return config | {"hub_model_id": records.model_repository(), "hub_strategy": "end"}


def job(
    target: str,
    *,
    data: Path | str | None = None,
    run_id: str | None = None,
    gpu: str | None = None,
    count: int | None = None,
    price: float | None = None,
    max_dollars: float | None = None,
) -> JobOrder:
    """Plan a recipe as a job; nothing is sent. Arguments and failures as of `order`; GPUs and price are those that
    you gave the endpoint."""
    run_id = records.checked_id(run_id or records.new_id(f"job-{Path(target).stem}"))
    files, bases, folder, options = pods.chosen(target, data, {"gpu": gpu, "count": count, "price": price})
    budgeted = options.pop("limit")
    if len(files) > 1 or any(bases):
        raise ElleError("a job takes one recipe whose base is on the Hub", where=target, fix="name one in configs/")
    plan = preflight.plan(files[0], **options)
    planning.require(preflight.together(target, [plan], budgeted))
    if plan.hardware.is_cpu:
        raise ElleError(f"{target} is for a processor: there is nothing to rent", where="--gpu", fix="--gpu a100")
    hourly = plan.hardware.price[1] * plan.hardware.count
    high = plan.budget.hours[1]
    limit = high * pods.MARGIN + pods.SETUP
    if max_dollars is None:
        max_dollars = hourly * limit
    limit = min(limit, max_dollars / hourly) if hourly else limit
    if limit < high:
        raise ElleError(
            f"${max_dollars:.2f} may not be enough: the plan takes up to {high:.2f} h of ${hourly:.2f} each",
            where="--max-dollars",
            fix=f"${hourly * high:.2f} or more",
        )
    endpoint = os.environ.get("AXOLOTL_ENDPOINT_ID", "").strip() or "$AXOLOTL_ENDPOINT_ID"
    return JobOrder(run_id, plan, folder, endpoint, hourly, limit, max_dollars)


def submit(
    order: JobOrder,
    *,
    confirm: Confirm,
    dry_run: bool = False,
    say: Say = print,
    client: runpod.Client | None = None,
) -> Status:
    """Upload the data and queue the job; it runs by itself, and RunPod ends it at its limit.

    Raises:
        ElleError: something is not set or not confirmed; the Hub or RunPod refuses.
        runpod.Unknown: the answer was lost: the job may run, and nobody can find it by name.
    """
    if dry_run:
        return Rental(order.run_id, "job", order.run_id).status("dry-run")
    records.needed(*pods.NEEDED, "AXOLOTL_ENDPOINT_ID")
    question = f"{order.text()}\n\nSubmit it, for at most ${order.max_dollars:.2f}?"
    records.confirmed(confirm, question, "elle job submit")
    client = client or runpod.Client(say=say)
    pods.prepare_data(order.data, say)
    model = records.model_repository()
    hub.ensure_uploaded(model, "model", say=say)  # private before the trainer would make it public
    before = {name: found[1] for name, found in hub.listing(model, "model").items()}
    record = records.begin(
        order.run_id, "job", hourly=order.hourly, limit=order.limit_hours * 3600 + QUEUE / 1000, before=before,
        dataset=records.dataset_repository(), models=[model], endpoint=order.endpoint,
    )  # fmt: skip
    folder = paths.runs() / order.run_id / "upload"
    inside = folder / "runs" / order.run_id / "data"
    inside.mkdir(parents=True, exist_ok=True)
    for facts in dataset.load_manifest(order.data)["splits"].values():
        link = inside / facts["file"]
        link.unlink(missing_ok=True)
        link.symlink_to((order.data / facts["file"]).resolve())
    names = [path.relative_to(folder).as_posix() for path in sorted(inside.iterdir())]
    hub.send(hub.of_files(folder, names, None, kind="dataset", message=f"Job {order.run_id}: its data"), say=say)
    record.save(state="asked", asked=time.time())
    try:
        answer = client.run(order.endpoint, order.request.body)
    except runpod.Refused as refused:
        record.settle("refused", refused.what)
        raise
    record.save(state="queued", id=answer["id"], rented=time.time())
    return record.status()


def job_status(run_id: str | None = None, *, client: runpod.Client | None = None) -> Status:
    """The state of a job's run, from any process."""
    record = records.load_rental(run_id, ("job",))
    if record.state in (*records.FINAL, "preparing"):
        return record.status()
    client = client or runpod.Client(retries=2)
    try:
        if record.id is None:
            return _settled(record) or record.status("asked")
        found = client.job(record.endpoint, record.id)
        if found is not None and found["status"] not in runpod.ENDED:
            return record.save(state="queued" if found["status"] == "IN_QUEUE" else "in-progress").status()
        if done := _settled(record):
            return done
    except ElleError as error:
        return record.status("unreachable", error.what)
    if found is None:
        return record.settle("lost")
    state = {"CANCELLED": "stopped", "TIMED_OUT": "expired"}.get(found["status"], "failed")
    said = secrets.redacted(str(found.get("error") or ""))[:500]
    if found["status"] == "COMPLETED":
        said = f"RunPod says COMPLETED, and {record.models[0]} holds no new weights"
    return record.settle(state, said or f"RunPod says {found['status']}")


def _settled(record: Rental) -> Status | None:
    """Succeeded, where the model repository holds weights that it did not hold before."""
    there = hub.listing(record.models[0], "model")
    new = [
        name
        for name, (size, digest) in there.items()
        if name.endswith(".safetensors") and size > 0 and record.before.get(name) != digest
    ]
    return record.settle("succeeded") if new else None


def job_cancel(run_id: str | None = None, *, client: runpod.Client | None = None) -> Status:
    """Cancel a job; what it has pushed counts. Safe to repeat.

    Raises:
        ElleError: RunPod cannot be reached, or the job's id is not known: it ends by its own limit then.
    """
    record = records.load_rental(run_id, ("job",))
    if record.state in records.FINAL:
        return record.status()
    if record.id is None and record.state != "preparing":
        raise ElleError(
            "RunPod's answer was lost, so this job has no known id",
            where=f"run {record.run_id}",
            fix="purge the endpoint's queue or set its workers to 0 in the console; it ends by its own limit",
        )
    if record.id is not None:
        try:
            (client or runpod.Client()).cancel(record.endpoint, record.id)
        except runpod.Refused as refused:
            if refused.status != 404:
                raise
        if done := _settled(record):
            return done
    return record.settle("stopped")
