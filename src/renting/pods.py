"""A training on a rented pod as one act: upload, rent, watch, check, end.

The pod does the work by itself (`start.sh`): this machine only watches, and may go. Whatever happens, the pod ends: by
itself when it is done or has failed, by its own timer at the latest, by `up` when that is interrupted, and by `down`.
"""

import json
import time
from contextlib import suppress

from elle import hub
from elle.base import secrets
from elle.base.errors import ElleError
from elle.base.process import interruptible
from renting import record as records
from renting import runpod, uploads
from renting.orders import NEEDED, START, Order
from renting.record import Confirm, Rental, Say

#: Seconds after its own limit when this machine ends a pod.
OVERDUE = 300.0
#: Seconds after which a request whose answer was lost is not expected to be taken up any more.
LATE = 600.0


def up(
    order: Order,
    *,
    confirm: Confirm,
    dry_run: bool = False,
    detach: bool = False,
    poll: float = 15.0,
    say: Say = print,
) -> Rental:
    """Upload, rent, watch until the pod has ended, and check what it left.

    confirm: asked with the whole order and its cost; nothing is sent to anyone before it says yes. detach: return once
    the pod is rented. poll: seconds between two looks.

    An interrupt (Ctrl-C, SIGTERM), and a failure on this side, terminate the pod; a lost connection does not.

    Raises:
        ElleError: something is not set or not confirmed; the Hub or RunPod refuses; the training failed.
    """
    if dry_run:
        return Rental(order.run_id, "pod", "dry-run")
    records.needed(*NEEDED)
    question = f"{order.text()}\n\nRent it, for at most ${order.max_dollars:.2f}?"
    records.confirmed(confirm, question, "elle pod up")
    client = runpod.Client(say=say)
    record = records.begin(
        order.run_id, "pod", hourly=order.hourly, limit=order.limit_hours * 3600 + START,
        dataset=records.own_repository("HF_DATASET_REPO"), models=order.repositories,
    )  # fmt: skip
    with interruptible():
        uploads.upload(order, say)
        try:
            _rent(order, record, client, say)
            if not detach:
                watch(record, client, poll, say)
        except BaseException as error:
            _give_up(record, client, error, say)
            raise
    if not detach and record.state != "succeeded":
        raise ElleError(record.sentence, where=f"run {order.run_id}", fix=f"elle pod logs {order.run_id}")
    return record


def _rent(order: Order, record: Rental, client: runpod.Client, say: Say) -> None:
    """Rent the pod, as long as it costs what was confirmed."""
    client.ensure_secret(records.token_secret())
    record.save(state="asked", asked=time.time())
    pod = client.create("pod", order.body())
    record.save(state="provisioning", pod=pod["id"], rented=time.time())
    say(f"rented pod {pod['id']} at ${pod['cost']:.2f} an hour; `elle pod down {order.run_id}` ends it")
    if pod["cost"] > order.hourly * 1.01 + 0.001:
        raise ElleError(
            f"the pod costs ${pod['cost']:.2f} an hour, and ${order.hourly:.2f} was confirmed: it is ended",
            where=pod["id"],
            fix="give the command again, and see the new price",
        )


def _give_up(record: Rental, client: runpod.Client, error: BaseException, say: Say) -> None:
    """End what is rented, or say what becomes of it."""
    stopped = isinstance(error, KeyboardInterrupt)
    what = "interrupted" if stopped else str(getattr(error, "what", None) or error or type(error).__name__)
    what = secrets.redacted(what)[:500]
    if record.state == "preparing":
        return  # nothing was rented
    refused = record.state == "asked" and isinstance(error, runpod.Refused)
    if not refused:  # else there is none, unless an earlier try was taken up late
        say("ending the pod")
    try:
        end(record, client, "stopped" if stopped else "refused", what)
    except ElleError as failure:
        record.save(remark=f"{what}; and it could not be ended: {failure.what}"[:500])
        say(f"it could not be ended: {failure.what}\nit ends by itself; `elle pod down {record.run_id}` ends it sooner")
        return
    if refused:
        return
    say("the pod is terminated" + ("; what it had not pushed is lost" if record.state == "stopped" else ""))
    if record.state == "succeeded":  # at this very moment
        say(record.sentence)


def end(record: Rental, client: runpod.Client, state: str, remark: str = "") -> Rental:
    """End all that a run rents, whatever its record says. What a pod has reported counts more than how it ended.

    Raises:
        ElleError: RunPod cannot be reached: it is not known whether it has ended.
    """
    client.end_all(record.kind, record.name)
    if record.state in records.FINAL:
        return record
    return record.settle(*(reported(record) or (state, remark)))


def watch(record: Rental, client: runpod.Client, poll: float, say: Say) -> Rental:
    """Look until the pod has ended; what stays behind is ended, what it left is checked."""
    told, cut_off = "", False
    while True:
        try:
            look(record, client)
            cut_off = False
        except ElleError as error:  # a refusal too: what trains is not ended for a key that was changed meanwhile
            if not cut_off:
                say(f"{error.what}\n{record.seen('unreachable', 'no connection').sentence} Still trying.")
            cut_off = True
        since = time.time() - record.rented
        if not cut_off:
            if not record.costs:
                return record
            if record.state != told:
                told = record.state
                say(f"{time.strftime('%H:%M:%S')} {record.sentence}")
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
    if record.state in ("lost", "stopped") and (late := reported(record)):  # taken up after the pod was gone
        return record.settle(*late)
    if record.state in records.FINAL:
        return record
    pods = client.rented("pod", record.name)
    if not pods and record.pod and (pod := client.pod(record.pod)):  # a list may lag behind
        pods = [pod]
    if pods:
        for other in pods[1:]:  # a request whose answer was lost, taken up late
            client.end("pod", other["id"])
        state = pods[0]["status"].lower()
        state = state if state in records.STATES else "running"
        return record.save(state=state, pod=record.pod or pods[0]["id"], rented=record.rented or time.time())
    if record.state == "preparing":
        return record
    if report := read_report(record):
        return record.settle(*report)
    if record.pod:
        return record.settle("lost")
    if time.time() - (record.asked or record.created) < LATE:
        return record.seen("asked")
    return record.settle("refused", "RunPod was asked, and no pod came of it")


def read_report(record: Rental) -> tuple[str, str] | None:
    """(state, remark) by what the pod put into the Hub, where that holds; None where it reported nothing.

    Raises:
        ElleError: the Hub cannot be asked.
    """
    raw = hub.read_remote(record.dataset, "dataset", f"runs/{record.run_id}/result.json")
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
    """The last lines of a run's log: of the pod while it is there, then of what it reported to the Hub.

    Raises:
        ElleError: neither has any.
    """
    record = records.load_rental(run_id, "pod")
    client = runpod.Client(retries=2)
    pods = client.rented("pod", record.name) if record.state not in records.FINAL else []
    if pods and (lines := client.logs(pods[0]["id"], tail)):
        return lines
    raw = hub.read_remote(record.dataset, "dataset", f"runs/{record.run_id}/log.txt")
    if raw is None:
        fix = "a pod that never ran has none: elle pod status"
        raise ElleError("there is no log", where=f"run {record.run_id}", fix=fix)
    return secrets.redacted(raw.decode("utf-8", errors="replace")).splitlines()[-tail:]
