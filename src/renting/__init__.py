"""What is rented on RunPod, and how it ends: trainings on pods, endpoints that serve.

Before anything is sent an order says what it will be, what it costs and what it cannot exceed; a dry run shows every
request. Money is the failure mode: each rental has a limit of its own that no machine but RunPod's has to keep, and a
record on disk by which any later process can look at it and end it (docs/runpod.md).
"""

from elle.base.errors import ElleError
from renting import endpoints, pods, record, runpod
from renting.endpoints import EndpointOrder, deploy, endpoint
from renting.orders import Order, order
from renting.pods import logs, up
from renting.record import Rental, environment

__all__ = [
    "EndpointOrder", "Order", "Rental", "deploy", "down", "endpoint", "environment", "logs", "order", "status", "up",
]  # fmt: skip


def status(run_id: str | None = None) -> Rental:
    """What a run has rented (None: the newest), as it is now: in one word and one sentence; from any process."""
    rental = record.load_rental(run_id)
    look = pods.look if rental.kind == "pod" else endpoints.look
    try:
        return look(rental, runpod.Client(retries=2))
    except ElleError as error:
        return rental.seen("unreachable", error.what)


def down(run_id: str | None = None) -> Rental:
    """End all that a run rents (None: the newest); what it has reported counts. Safe to repeat.

    Raises:
        ElleError: RunPod cannot be reached: it is not known whether it has ended.
    """
    return pods.end(record.load_rental(run_id), runpod.Client(), "stopped")
