"""How what is rented comes to be, is found again and is known to be gone: by its id, never by a list alone.

RunPod's lists lag some seconds behind, and a request that it answered with 500, or not at all, may have been done. So a
record counts the requests that may have made something, and keeps every id that was ever seen. All is gone when each id
is answered by 404; nothing more turns up when each request has its id, or the last one is LATE seconds old.
"""

import re
import time
from collections.abc import Mapping
from typing import Any

from elle.base.errors import ElleError
from renting import record as records
from renting import runpod
from renting.record import Rental

#: Seconds that a list may lag behind; after which a request is not expected to be taken up any more; between two looks.
LAG, LATE, LOOK = 10.0, 120.0, 1.0


def check_free(kind: str, run_id: str, client: runpod.Client) -> None:
    """An ElleError where the run is not over, or something has its name already: it is another machine's, or its record
    is gone."""
    records.check_over(run_id)
    for each in client.rented(kind):
        named = re.fullmatch(rf"elle-{re.escape(run_id)}(-[0-9a-f]{{8}})?( .*)?", each["name"])
        if named and client.get(kind, each["id"]):  # else the list lags behind
            what = f"{kind} {each['id']} is called {each['name']}, and no record here knows it: it is left alone"
            fix = "another --run-id; if it is yours, end it where it was rented, or in RunPod's console"
            raise ElleError(what, where="your RunPod account", fix=fix)


def make(record: Rental, client: runpod.Client, body: Mapping[str, Any]) -> dict:
    """The pod or endpoint of `body`, made. It is asked for again only where the answer was lost and LAG seconds later
    no list shows one; what turns up still later, `recorded` and `remove` end. An ElleError where RunPod refuses or
    cannot be reached, or it is to end meanwhile."""

    def ask() -> None:  # each time anew: `remove` counts LATE from the last one, and none is sent after `stop`
        record.save(state="asked", asked=records.uptime())
        if record.stop:
            raise ElleError("it was ended meanwhile", where=f"run {record.run_id}", fix="another --run-id")

    for _ in range(client.retries + 1):
        record.save(creates=record.creates + 1)
        try:
            made = client.send(runpod.create_rented(record.kind, body), holds="id", before=ask)
        except runpod.Unknown as error:
            lost = error
            while not (there := survey(record, client)[0]) and records.uptime() < record.asked + LAG:
                time.sleep(LOOK)
            made = there[0] if there else None
        except ElleError:
            record.save(creates=record.creates - 1)  # surely nothing came of this one
            raise
        if made:
            record.save(pod=made["id"], ids=[*dict.fromkeys([*record.ids, made["id"]])])
            if record.stop:  # whoever set it may be gone
                raise ElleError("it was ended meanwhile", where=made["id"], fix="another --run-id")
            return made
    raise lost


def survey(record: Rental, client: runpod.Client) -> tuple[list[dict], bool]:
    """What there is of a rental: all that a list shows under its name, or ever did, as RunPod answers for its id; and
    whether nothing else can turn up. An ElleError where it shows nothing to another key than the one that rented it."""
    # By the time before the look. Before 0: this machine was started again.
    late = not 0 <= records.uptime() - (record.asked or 0.0) <= LATE
    listed = [each["id"] for each in client.rented(record.kind) if each["name"].startswith(record.name)]
    record.save()  # another process may know more
    if new := [id for id in listed if id not in record.ids]:
        record.save(ids=[*record.ids, *new])
    there = [found for id in record.ids if (found := client.get(record.kind, id))]
    if there and record.account != runpod.account():
        record.save(account=runpod.account())  # another key of the same account
    if record.account not in ("", runpod.account()):
        fix = f"export the {runpod.KEY} (and {runpod.REST}) that rented it; without them end it in the console"
        raise ElleError("the key or address is another than the one that rented it", where=record.name, fix=fix)
    return there, late or len(record.ids) >= record.creates


def recorded(record: Rental, client: runpod.Client) -> tuple[dict | None, bool]:
    """The recorded pod or endpoint as it is now (None: it is gone), and whether that is all there can be: what turns up
    beside it is ended."""
    there, complete = survey(record, client)
    if there and not record.pod:
        record.save(pod=there[0]["id"])
    others = [each["id"] for each in there if each["id"] != record.pod]
    for other in others:
        client.tell(f"{record.kind} {other} has the name of {record.pod}, which is the recorded one: it is ended")
        client.end(record.kind, other)
    mine = next((each for each in there if each["id"] == record.pod), None)
    return mine, complete and not others


def sift(record: Rental, client: runpod.Client) -> None:
    """Wait until nothing can turn up any more beside what is recorded; what does is ended."""
    while not recorded(record, client)[1]:
        time.sleep(LOOK)


def remove(record: Rental, client: runpod.Client) -> None:
    """End all of a rental, and see it gone; where a request's answer was lost, until nothing can come of it any more.
    An ElleError where RunPod cannot be asked, or something is still there."""
    until = records.uptime() + 2 * LATE
    if len(record.ids) < record.creates:
        client.tell(f"a request to RunPod had no answer: up to {LATE:.0f} s it is looked for what comes of it")
    while True:
        there, complete = survey(record, client)
        if complete and not there:
            return
        for each in there:
            client.end(record.kind, each["id"])
        if records.uptime() > until:
            raise ElleError("it is still there", where=record.name, fix=f"elle pod down {record.run_id}")
        time.sleep(LOOK)


def remains(record: Rental) -> str:
    """What is to be said of a rental that could not be ended: what may run still, and the command that ends it."""
    what = " and ".join(record.ids) or "one that was asked for"
    itself = "it ends by itself at its limit; " if record.kind == "pod" else "nothing ends it by itself; "
    return f"{record.kind} {what} may still run and cost: {itself}`elle pod down {record.run_id}` ends it now"
