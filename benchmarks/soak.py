"""Long trials of what `make test` tries shortly: `make soak`, or `python benchmarks/soak.py [--count 100000]`.

The evaluator: `count` targets with one digit changed, and as many with one change that makes them false, of the kinds
of `hostile.KINDS`, none of which may pass; a fifth as many untouched targets of another seed, all of which must;
`count` damaged outputs, none of which may crash it; and outputs of endless repetitions, 0.25 and 1 MB long, whose times
say whether reading them is linear.

The server: `requests` briefings, 32 at once, held to the schema, from the newest run's model (`--model` names another);
half-way the server is killed and started again. None may be lost, and none may be no briefing.

Renting: `rentals` runs of `elle pod up` with a fault each (`soak_pod`). No pod may be left, and nothing lost.

Runs: `kills` of `elle run smoke` at random points (`soak_run`). Each goes on, and ends as an unbroken one does.

Writes `docs/soak.json`, and `docs/soak.md` made from it; `--only evaluator`, `server`, `renting` or `runs` renews one
part.

Exit code 1 where anything was missed.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import soak_pod
import soak_run
from hostile import ENDLESS, KINDS, change_digit, damage, endless, mutate

from elle.base import paths, storage
from elle.base.process import descendants
from elle.briefings import dataset
from elle.briefings.schema import Example
from elle.evaluation.parsing import MAX_BYTES
from elle.evaluation.verdict import Record, judge

#: Rows of each kind that outputs are made from.
ROWS = 1000


def rows(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """(prompt, answer) of `count` rows, half basic, half CIC."""
    for kind in ("basic", "cic"):
        for index in range(count // 2):
            _, _, prompt, answer = Example.of(dataset.row(kind, seed, index))
            yield prompt, answer


def right(record: Record) -> int:
    return sum(found.ok for found in record.findings)


def recalled(record: Record) -> int:
    return record.counts["numeric_recall"][0] + record.counts["derived_recall"][0]


def seen(before: Record, after: Record) -> bool:
    """Whether a changed digit was: a number is wrong or not read (07), fewer are right, recall fell, the briefing is
    not all right. That as many nations exceed 51% may be true; the count that is asked for is missing."""
    wrong = any(not found.ok for found in after.findings) or bool(after.unread)
    wrong = wrong and right(after) < right(before)
    uncounted = any(reason.startswith("summary: exceed 50% ") for reason in after.reasons)
    return (wrong or uncounted) and recalled(after) < recalled(before) and after.counts["all_right"] == (0, 1)


def verdict(prompt: str, answer: str, output: str) -> tuple[dict[str, tuple[int, int]], str]:
    """The counts of an output's verdict, and the fault where there is none."""
    try:
        record = judge("x", prompt, answer, output)
        json.dumps(record.to_json(), allow_nan=False, ensure_ascii=False).encode()
    except Exception as error:  # whatever it is, it is the fault looked for
        return {}, f"{type(error).__name__}: {error}: {output!r}"
    return record.counts, ""


def trial(count: int, once: Callable[[], str], seed: int) -> dict:
    """`once`, `count` times; it returns what went wrong, or ""."""
    began, slowest, faults = time.perf_counter(), 0.0, []
    for number in range(count):
        at = time.perf_counter()
        if fault := once():
            faults.append(fault[:2000])
        slowest = max(slowest, time.perf_counter() - at)
        if number % 5000 == 4999:
            print(f"  {number + 1:,} of {count:,}, {len(faults)} faults", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    return {
        "count": count,
        "faults": len(faults),
        "first": faults[:3],
        "seconds": round(seconds, 1),
        "slowest_ms": round(1000 * slowest, 1),
        "seed": seed,
    }


def evaluator(count: int, seed: int) -> dict:
    pick = random.Random(seed)
    made = [(prompt, answer, judge("x", prompt, answer, answer)) for prompt, answer in rows(seed, 2 * ROWS)]
    others = rows(seed + 1, count // 5)

    def untouched() -> str:
        prompt, answer = next(others)
        record = judge("x", prompt, answer, answer)
        return "; ".join(record.reasons) or ("" if record.counts["all_right"] == (1, 1) else answer)

    def changed() -> str:
        prompt, answer, before = pick.choice(made)
        output = change_digit(answer, pick)
        return "" if seen(before, judge("x", prompt, answer, output)) else output

    def changed_by_kind() -> str:
        kind, output = pick.choice(KINDS), None
        while output is None:
            prompt, answer, _ = pick.choice(made)
            output = mutate(prompt, answer, kind, pick)
        counts, fault = verdict(prompt, answer, output)
        return fault or (f"{kind}: {prompt!r}: {output}" if counts["all_right"] == (1, 1) else "")

    def damaged() -> str:
        prompt, answer, _ = pick.choice(made)
        output = damage(answer, pick)
        counts, fault = verdict(prompt, answer, output)
        return fault or ("" if all(0 <= top <= bottom for top, bottom in counts.values()) else f"counts: {output!r}")

    return {
        "untouched targets, wrongly flagged": trial(count // 5, untouched, seed + 1),
        "one digit changed, missed": trial(count, changed, seed),
        "changed by kind, missed": trial(count, changed_by_kind, seed),
        "damaged outputs, crashes": trial(count, damaged, seed),
    }


def growth(sizes: tuple[int, int] = (250_000, 990_000)) -> list[dict]:
    """Seconds for outputs of endless repetitions, and how often as long the longer one takes: 4 is linear."""
    prompt, answer = list(rows(0, 2))[1]
    found = []
    for unit in ENDLESS:
        for key in (None, "summary"):
            taken = []
            for size in sizes:
                output = endless(unit, size, key)
                while len(output.encode()) > MAX_BYTES:
                    output = endless(unit, size := size // 2, key)
                best = 9e9
                for _ in range(2):
                    at = time.process_time()
                    judge("x", prompt, answer, output)
                    best = min(best, time.process_time() - at)
                taken.append(best)
            ratio = taken[1] / max(taken[0], 1e-4)
            found.append(
                {"unit": unit, "in": key or "the output", "seconds": round(taken[1], 3), "ratio": round(ratio, 1)}
            )
    return sorted(found, key=lambda each: -each["seconds"])


def serve(count: int, model: str | None) -> dict:
    """`count` briefings asked for at concurrency 32 under constraint; the server is killed once on the way."""
    from serve import newest

    from elle.serving import deployments, server
    from elle.serving.answers import Verdicts, collect, schema_of

    weights, _ = deployments.resolve(model or newest())
    asked = [dataset.row("basic", 77, index) for index in range(count)]
    verdicts, killed, latency = Verdicts(), threading.Event(), []
    with tempfile.TemporaryDirectory(prefix="elle-") as folder:
        first = server.start_server(weights, Path(folder) / "first")
        port = int(first.base_url.rpartition(":")[2].removesuffix("/v1"))
        second: list[server.Server] = []

        def again() -> None:
            killed.wait()
            for pid in descendants(first.job.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            first.job.wait(30)
            second.append(server.start_server(weights, Path(folder) / "second", port=port))

        def progress(done: int, total: int) -> None:
            if done == total // 2:
                killed.set()

        other = threading.Thread(target=again)
        other.start()
        try:
            batch = collect(
                first, asked, Path(folder) / "x.jsonl", schema=schema_of(asked), max_tokens=320, concurrency=32,
                retries=60, judged=verdicts, progress=progress,
            )  # fmt: skip
        finally:
            killed.set()
            other.join()
            for each in (first, *second):
                each.stop()
        latency = [round(batch.latency(percent), 2) for percent in (50, 95, 100)]
    return {
        "requests": count,
        "lost": len(batch.failed),
        "cut_off": sum(answer.finish_reason != "stop" for answer in batch.answers),
        "not_json": verdicts.not_json,
        "not_briefing": verdicts.not_schema,
        "not_right": verdicts.not_right,
        "kills": 1,
        "back_after": round(second[0].startup_seconds, 1),
        "seconds": round(batch.seconds, 1),
        "latency": latency,
        "model": deployments.models.find(str(weights)).parameters,
    }


def page(found: dict) -> str:
    lines = ["# Soak", "", f"`make soak` on {found['machine']}, shared with other work.", ""]
    if "server" in found:
        lines += server_lines(found["server"])
    if "renting" in found:
        lines += soak_pod.section(found["renting"], told(found["renting"]))
    if "runs" in found:
        lines += soak_run.section(found["runs"], told(found["runs"]))
    if "evaluator" in found:
        lines += evaluator_lines(found["evaluator"])
    return "\n".join(lines)


def server_lines(found: dict) -> list[str]:
    p50, p95, longest = found["latency"]
    return [
        "## The server",
        "",
        f"{told(found)}: briefings of a model of {found['model']:,} parameters, 32 at once, held to the schema.",
        "Half-way the server was killed (SIGKILL) and started again; it answered "
        f"{found['back_after']:.0f} s later, and the client waited for it.",
        "",
        "| requests | lost | cut off | no JSON | no briefing | not right in all | seconds | p50, p95, longest (s) |",
        "|---|---|---|---|---|---|---|---|",
        f"| {found['requests']:,} | {found['lost']} | {found['cut_off']} | {found['not_json']} | "
        f"{found['not_briefing']} | {found['not_right']} | {found['seconds']:,.0f} | {p50}, {p95}, {longest} |",
        "",
        "What is not right in all is the model's, not the server's: a schema holds the form, never a number.",
        "",
    ]


def told(found: dict) -> str:
    return f"On {found['date']}, Python {found['python']}, elle {found['elle']}, {found['took'] / 60:.0f} minutes"


def evaluator_lines(found: dict) -> list[str]:
    lines = [
        "## The evaluator",
        "",
        f"{told(found)} on one core.",
        "",
        "| trial | inputs | faults | a second | slowest (ms) |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {each['count']:,} | {each['faults']} | {each['count'] / max(each['seconds'], 0.1):,.0f} | "
        f"{each['slowest_ms']:,} |"
        for name, each in found["trials"].items()
    ]
    lines += [
        "",
        "A changed digit is seen where a number is wrong or unread, fewer are right, recall fell and the briefing is",
        "not all right (one of the threshold of 50% where the count is missing); a change by kind where it is not all",
        "right.",
        f"The kinds: {', '.join(KINDS)}.",
        "The rates include the making of the input, and of one damaged or changed by kind its record as JSON.",
        "",
        "Outputs of just under 1 MB of one repetition, the ten slowest of "
        f"{len(found['growth'])}; the ratio is to a quarter of the length, so that 4 is linear:",
        "",
        "| repeated | in | seconds | ratio |",
        "|---|---|---|---|",
        *(
            f"| `{json.dumps(each['unit'])}` | {each['in']} | {each['seconds']} | {each['ratio']} |"
            for each in found["growth"][:10]
        ),
        "",
    ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rentals", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="keep the killed runs; use its unbroken one again")
    parser.add_argument("--model", metavar="RUN_OR_FOLDER")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("evaluator", "server", "renting", "runs"))
    arguments = parser.parse_args()
    folder = paths.root() / "docs"
    found = {"machine": platform.machine()}
    if arguments.only:
        found = storage.read_json(folder / "soak.json")
    parts = {
        "renting": lambda: soak_pod.pods(arguments.rentals, arguments.seed),
        "runs": lambda: soak_run.runs(arguments.kills, arguments.seed, arguments.runs),
        "server": lambda: serve(arguments.requests, arguments.model),
        "evaluator": lambda: {"trials": evaluator(arguments.count, arguments.seed), "growth": growth()},
    }
    facts = {"date": datetime.date.today().isoformat(), "python": platform.python_version(), "elle": version("elle")}
    for name in [arguments.only] if arguments.only else parts:
        began = time.perf_counter()
        found[name] = parts[name]() | facts
        found[name]["took"] = round(time.perf_counter() - began)
    text = page(found)
    print(text)
    storage.write_json(folder / "soak.json", found)
    storage.write_text(folder / "soak.md", text)
    served = found.get("server", {"lost": 0, "not_briefing": 0})
    faults = any(each["faults"] for each in found.get("evaluator", {"trials": {}})["trials"].values())
    left = found.get("renting", {"bad": []})["bad"]
    broken = found.get("runs", dict.fromkeys(soak_run.COUNTED, 0))
    left = left or any(broken[name] for name in soak_run.COUNTED)
    return int(faults or bool(left or served["lost"] or served["not_briefing"]))


if __name__ == "__main__":
    sys.exit(main())
