"""What is rented on RunPod, and how it ends: trainings on pods, endpoints that serve.

Before anything is sent an order says what it will be, what it costs and what it cannot exceed; a dry run shows every
request. Money is the failure mode: each rental has a limit of its own that no machine but RunPod's has to keep, and a
record on disk by which any later process can look at it and end it (docs/runpod.md).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from elle.base.errors import ElleError

if TYPE_CHECKING:
    from renting.record import Rental, Say

#: Name → the module that has it. Each is imported when it is asked for: `elle --help` needs none of them.
_HOMES = {"order": "orders", "up": "pods", "logs": "pods", "endpoint": "endpoints", "deploy": "endpoints"}
_HOMES["environment"] = "record"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def status(run_id: str | None = None, say: "Say" = print) -> "Rental":
    """What a run has rented (None: the newest that costs, or else the newest), as it is now: in one word and one
    sentence; from any process here."""
    from renting import endpoints, pods, record, runpod

    rental = record.load_rental(run_id, say=say)
    look = pods.look if rental.kind == "pod" else endpoints.look
    try:
        return look(rental, runpod.Client(retries=2, say=say))
    except ElleError as error:
        return rental.seen("unreachable", error.what)


def down(run_id: str | None = None, say: "Say" = print) -> "Rental":
    """End all that a run rents (None: as in `status`); what it has reported counts. Safe to repeat. An ElleError where
    it is not known whether it has ended: then it is said what may run still."""
    from elle.base.process import interruptible
    from renting import lifecycle, pods, record, runpod

    rental, client = record.load_rental(run_id, say=say), runpod.Client(say=say)
    with interruptible(client.tell) as came:
        came.append(0)  # the first signal is told of, and does not cut the ending short
        try:
            rental.save(stop=True)  # whoever asks for it now, or watches it, ends it too
            return pods.end(rental, client, "stopped")
        except BaseException:
            client.tell(lifecycle.remains(rental))
            raise
