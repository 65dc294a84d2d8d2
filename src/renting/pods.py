"""A training on a rented pod as one act: upload, rent, watch, check, end.

The pod does the work by itself (`start.sh`): this machine only watches, and may go. Whatever happens, the pod ends: by
itself when it is done or has failed, by its own timer at the latest, by `up` when that is interrupted, and by `down`.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from elle import hub
from elle.base import secrets
from elle.base.errors import ElleError, finite
from elle.base.process import interruptible
from renting import lifecycle, runpod, uploads
from renting import record as records
from renting.orders import NEEDED, START, Order
from renting.record import Confirm, Rental, Say

#: Seconds after its own limit when this machine ends a pod.
OVERDUE = 300.0


def up(
    order: Order, *, confirm: Confirm, dry_run: bool = False, detach: bool = False, poll: float = 15.0, say: Say = print
) -> Rental:
    """Upload, rent, watch until the pod has ended, and check what it left.

    confirm: asked with the whole order and its cost; nothing is sent to anyone before it says yes. detach: return once
    the pod is rented. poll: seconds between two looks.

    Ctrl-C, SIGTERM and a failure on this side terminate the pod; a lost connection, or terminal (SIGHUP), does not.

    Raises:
        ElleError: something is not set or not confirmed; another machine has a pod of this name; the Hub or RunPod
            refuses; the training failed.
    """
    finite(poll, "pause", "--poll", "seconds, such as 15")
    if dry_run:
        return Rental(order.run_id, "pod", "dry-run")
    records.needed(*NEEDED)
    question = f"{order.text()}\n\nRent it, for at most ${order.max_dollars:.2f}?"
    records.confirmed(confirm, question, "elle pod up")
    client = runpod.Client(say=say)
    with records.beginning(order.run_id):
        lifecycle.check_free("pod", order.run_id, client)
        record = records.begin(
            order.run_id, "pod", hourly=order.hourly, limit=order.limit_hours * 3600 + START,
            dataset=records.own_repository("HF_DATASET_REPO"), models=order.repositories, account=runpod.account(),
        )  # fmt: skip
        with ended_on_failure(record, client):
            uploads.upload(order, client.tell)
            _rent(order, record, client)
            if not detach:
                watch(record, client, poll)
    if not detach and record.state != "succeeded":
        raise ElleError(record.sentence, where=f"run {order.run_id}", fix=f"elle pod logs {order.run_id}")
    return record


def _rent(order: Order, record: Rental, client: runpod.Client) -> None:
    """Rent the pod, as long as it costs what was confirmed."""
    client.ensure_secret(records.token_secret())
    pod = lifecycle.make(record, client, order.body(record.mark))
    if dear := too_dear(record, pod):
        raise ElleError(dear, where=pod["id"], fix="give the command again, and see the new price")
    record.save(state="provisioning", rented=time.time())
    client.tell(f"rented pod {pod['id']} at ${float(pod['cost']):.2f} an hour; `elle pod down {order.run_id}` ends it")
    lifecycle.sift(record, client)


def too_dear(record: Rental, pod: dict) -> str:
    """What is wrong with the price of a pod; empty where it is what was confirmed, or less."""
    cost = math.nan  # which is not what was confirmed either
    with suppress(ValueError, TypeError):
        cost = float(pod.get("cost") or cost)
    dear = f"the pod costs ${cost:.2f} an hour, and ${record.hourly:.2f} was confirmed: it is ended"
    return "" if cost <= record.hourly * 1.01 + 0.001 else dear


@contextmanager
def ended_on_failure(record: Rental, client: runpod.Client) -> Iterator[None]:
    """Where what is inside fails or is interrupted, what it has rented is ended, or it is said what may run still."""
    with interruptible(client.tell) as came:
        try:
            yield
        except BaseException as error:
            came[:] = came or [0]  # from here on a signal is told of, and does not cut the ending short
            if error.args == ("SIGHUP",) and record.rented:  # whoever watched is gone, and the pod trains
                client.tell(f"the terminal is gone, and the pod goes on: {lifecycle.remains(record)}")
            elif record.state != "preparing":
                _give_up(record, client, error)
            raise


def _give_up(record: Rental, client: runpod.Client, error: BaseException) -> None:
    """End what is rented, or say what may run still."""
    state, what = ("stopped", "interrupted") if isinstance(error, KeyboardInterrupt) else ("refused", _words(error))
    asked = record.creates  # else surely nothing came of it
    if asked:
        client.tell(f"ending the {record.kind}")
    try:
        end(record, client, state, what)
    except BaseException as failure:
        client.tell(f"it could not be ended: {_words(failure)}\n{lifecycle.remains(record)}")
        record.save(remark=f"{what}; and it could not be ended: {_words(failure)}")
        return
    if asked:
        lost = "; what it had not pushed is lost" if record.kind == "pod" and record.state == "stopped" else ""
        client.tell(f"the {record.kind} is terminated{lost}")
    if record.state == "succeeded":  # at this very moment
        client.tell(record.sentence)


def _words(error: BaseException) -> str:
    return secrets.redacted(str(getattr(error, "what", None) or error or type(error).__name__))[:500]


def end(record: Rental, client: runpod.Client, state: str, remark: str = "") -> Rental:
    """End all that a run rents, whatever its record says; an ElleError where it is not known whether it has ended. What
    a pod has reported counts more than how it ended."""
    if record.creates:  # else nothing was ever asked for
        lifecycle.remove(record, client)
    if record.state in records.FINAL:
        return record
    return record.settle(*(reported(record) or (state, remark)))


def watch(record: Rental, client: runpod.Client, poll: float) -> Rental:
    """Look until the pod has ended; what stays behind is ended, what it left is checked."""
    told, cut_off, began = "", False, records.uptime()
    while True:
        try:
            look(record, client)
            cut_off = False
        except ElleError as error:  # a refusal too: what trains is not ended for a key that was changed meanwhile
            if not cut_off:
                client.tell(f"{error.what}\n{record.seen('unreachable', 'no connection').sentence} Still trying.")
            cut_off = True
        since = records.uptime() - began
        if not cut_off:
            if not record.costs:
                return record
            if record.stop:
                return end(record, client, "stopped")
            if record.state != told:
                told = record.state
                client.tell(f"{time.strftime('%H:%M:%S')} {record.sentence}")
            if record.state in ("exited", "error"):
                return end(record, client, "lost", f"its container ended ({record.state})")
            if record.state in ("provisioning", "starting") and since > START:
                return end(record, client, "never-started")
        if since > record.limit + OVERDUE:
            if cut_off:
                what = "RunPod could not be asked since before the pod's limit"
                raise ElleError(what, where=record.name, fix="elle pod status")
            return end(record, client, "expired", "it outlived its own limit and was ended from here")
        time.sleep(poll)


def look(record: Rental, client: runpod.Client) -> Rental:
    """A pod's run as it is now; a settled one is not asked for again."""
    if not record.creates or record.state in ("succeeded", "failed"):
        return record
    if record.state in records.FINAL:  # its report may be taken up after the pod was gone
        late = reported(record)
        return record.settle(*late) if late else record
    pod, complete = lifecycle.recorded(record, client)
    if pod:
        if not record.rented and (dear := too_dear(record, pod)):  # nobody has seen its price yet
            return end(record, client, "refused", dear)
        state = str(pod.get("status")).lower()
        return record.save(state=state if state in records.STATES else "running", rented=record.rented or time.time())
    if not complete:
        return record.seen("asked")
    if report := read_report(record):
        return record.settle(*report)
    return record.settle(*(("lost",) if record.pod else ("refused", "RunPod was asked, and no pod came of it")))


def read_report(record: Rental) -> tuple[str, str] | None:
    """(state, remark) by what the pod put into the Hub, where that holds; None where it reported nothing.

    Raises:
        ElleError: the Hub cannot be asked.
    """
    raw = record.from_pod("result.json")
    if raw is None:
        return None
    try:
        result = json.loads(raw)
        state, reason = result["state"], secrets.redacted(str(result.get("reason") or ""))[:500]
        weights = [(each["repository"], each["files"]) for each in result.get("weights", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return "failed", f"its report cannot be read ({type(error).__name__})"
    if state != "succeeded":
        return ("expired" if state == "expired" else "failed"), reason
    for repository, files in weights:
        if name := hub.not_held(hub.listing(repository, "model"), files):
            return "failed", f"the Hub does not hold {repository}: {name} as it was pushed"
    if not any(name.endswith(".safetensors") for _, files in weights for name in files):
        return "failed", "it reports success without weights"
    record.save(models=[repository for repository, _ in weights])
    return "succeeded", ""


def reported(record: Rental) -> tuple[str, str] | None:
    """`read_report`, where the Hub answers; None also for what reports nothing there."""
    if record.dataset:
        with suppress(ElleError):
            return read_report(record)
    return None


def logs(run_id: str | None = None, tail: int = 100) -> list[str]:
    """The last lines of a run's log: of the pod while it is there, then of what it reported to the Hub; an ElleError
    where neither has any."""
    record = records.load_rental(run_id, "pod")
    client = runpod.Client(retries=2)
    there = record.pod and record.state not in records.FINAL and client.get("pod", record.pod)
    if there and (lines := client.logs(record.pod, tail)):
        return lines
    raw = record.from_pod("log.txt")
    if raw is None:
        fix = "a pod that never ran has none: elle pod status"
        raise ElleError("there is no log", where=f"run {record.run_id}", fix=fix)
    return secrets.redacted(raw.decode("utf-8", errors="replace")).splitlines()[-tail:]
