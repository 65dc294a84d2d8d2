"""What is rented on RunPod, and how it ends: trainings on pods and as serverless jobs, endpoints that serve.

Before anything is sent an order says what it will be, what it costs and what it cannot exceed; a dry run shows every
request. Money is the failure mode: each rental has a limit of its own that no machine but RunPod's has to keep, and a
record on disk by which any later process can look at it and end it (docs/runpod.md).
"""

from renting import endpoints, jobs, pods, record, runpod
from renting.endpoints import EndpointOrder, deploy, endpoint, openai_base_url
from renting.jobs import JobOrder, job, job_cancel, job_status, submit
from renting.pods import Order, logs, order, up
from renting.record import STATES, VARIABLES, Status, environment, needed, rented_runs

__all__ = [
    "STATES", "VARIABLES", "EndpointOrder", "JobOrder", "Order", "Status", "deploy", "down", "endpoint", "environment",
    "job", "job_cancel", "job_status", "logs", "needed", "openai_base_url", "order", "rented_runs", "status", "submit", "up",
]  # fmt: skip


def status(run_id: str | None = None, *, client: runpod.Client | None = None) -> Status:
    """The state of what a run has rented (None: the newest), in one word and one sentence; from any process."""
    found = record.load_rental(run_id)
    if found.kind == "job":
        return jobs.job_status(found.run_id, client=client)
    if found.kind == "endpoint":
        return endpoints.endpoint_status(found, client or runpod.Client(retries=2))
    return pods.status(found.run_id, client=client)


def down(run_id: str | None = None, *, client: runpod.Client | None = None) -> Status:
    """End all that a run rents (None: the newest): its pod, its job, its endpoint. Safe to repeat.

    Raises:
        ElleError: RunPod cannot be reached: it is not known whether it has ended.
    """
    found = record.load_rental(run_id)
    if found.kind == "job":
        return jobs.job_cancel(found.run_id, client=client)
    if found.kind == "endpoint":
        return endpoints.delete(found, client or runpod.Client())
    return pods.down(found.run_id, client=client)
