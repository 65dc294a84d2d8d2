"""What a briefing costs by an API, on a machine that is always on, and on one that comes when asked; and from which
volume on the one is cheaper than the other. docs/costs.md says what it rests on.

Units: dollars; seconds of a whole machine (all its GPUs); briefings per month of 730 hours; tokens of any tokenizer.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown
from elle.base.tables import aligned
from elle.base.yaml_files import config_table
from elle.plan import hardware, models

#: Hours of a month: 365 · 24 / 12.
HOURS = 730
#: Share of the bound below that a server reaches, lowest and highest to be expected: writing one briefing (vLLM on one
#: A100 was seen at 77 % of its memory's bandwidth), and with as many at once as its memory holds.
EFFICIENCY = {"alone": (0.5, 0.8), "full": (0.3, 0.6)}
#: Share of a GPU's memory that the server takes (vLLM's default), and the most briefings that it writes at once.
MEMORY, AT_ONCE = 0.9, 256
#: GPUs of one machine.
COUNTS = (1, 2, 4, 8)
#: The volumes of the table, briefings per month.
VOLUMES = (1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Assumptions:
    """What the comparison rests on; any of it may be changed.

    Raises:
        ElleError: a value that cannot be, an unknown model or GPU, or a model that does not fit the machine.
    """

    tokens_in: float = 1500.0  # tokens of a prompt
    tokens_out: float = 700.0  # tokens of an answer
    model: str = "qwen2.5-7b"  # what is served (configs/models.yaml)
    gpu: str = "h100"  # the GPU that is always on (configs/gpus.yaml)
    gpus: int = 0  # how many of it; 0: as few as hold the model
    price: float = 0.0  # dollars per GPU-hour; 0: ELLE_GPU_PRICE, else list price
    alone: float = 0.0  # tokens per second that a machine writes of one briefing; 0: by its bandwidth
    full: float = 0.0  # the same with as many briefings at once as it holds; 0: by bandwidth and speed
    utilisation: float = 1.0  # share of its hours that an always-on machine is given work
    cold_start: float = 35.0  # seconds until a serverless worker has started
    idle: float = 60.0  # seconds that it stays after its last briefing
    together: int = 1  # briefings per request
    training: float = 0.0  # dollars that the training cost
    months: float = 12.0  # months over which the training is paid off

    def __post_init__(self) -> None:
        least = {"tokens_in": 1, "tokens_out": 1, "together": 1, "utilisation": 1e-6, "months": 1e-6}
        most = {"utilisation": 1.0, "gpus": max(COUNTS)}
        for name in (each.name for each in fields(self) if each.type in (int, float)):
            value, low, high = getattr(self, name), least.get(name, 0), most.get(name, 1e12)
            if not (isinstance(value, int | float) and low <= value <= high):
                raise ElleError(f"{name} is {value}", where="assumptions of the costs", fix=f"from {low:g} to {high:g}")
        machine = self.always_on()
        seconds(self, machine.name, machine.count)

    @classmethod
    def given(cls, values: Mapping[str, str]) -> "Assumptions":
        """The defaults, changed by values as a command line gives them.

        Raises:
            ElleError: an unknown name (with the nearest), a value of another type, or one that cannot be.
        """
        known = {each.name: each.type for each in fields(cls)}
        for name in values:
            if name not in known:
                raise unknown("assumption", name, known, where="elle costs -p")
        try:
            return cls(**{name: known[name](value) for name, value in values.items()})
        except ValueError as error:
            raise ElleError(f"not a number: {error}", where="elle costs -p", fix="such as 400") from error

    def shape(self) -> models.Model:
        if (model := models.find(self.model)) is None:
            raise unknown("model", self.model, models.model_names(), where="configs/models.yaml")
        return model

    def always_on(self) -> hardware.Hardware:
        price = self.price or None
        name = hardware.find(self.gpu, price=price).name
        return hardware.find(name, self.gpus or _fewest(self, name, COUNTS), price=price)


def _at_once(a: Assumptions, gpu: str, count: int) -> int:
    """How many briefings the memory of a machine holds beside the weights (0: not one, or not even these)."""
    model = a.shape()
    room = count * MEMORY * config_table("gpus")["gpus"][gpu]["memory_gb"] * 1e9 - model.stored_bytes
    return max(0, min(AT_ONCE, math.floor(room / (model.kv_cache_bytes() * (a.tokens_in + a.tokens_out)))))


def _fewest(a: Assumptions, gpu: str, counts: Sequence[int]) -> int:
    """The fewest GPUs of one machine that hold the model and a briefing.

    Raises:
        ElleError: not even the most do.
    """
    for count in counts:
        if _at_once(a, gpu, count):
            return count
    what = f"{a.model} does not fit {max(counts)} x {gpu}"
    raise ElleError(what, where="assumptions of the costs", fix="name a larger GPU")


def seconds(a: Assumptions, gpu: str, count: int) -> dict[str, tuple[float, float]]:
    """Seconds of the machine for a briefing, lowest and highest: `alone`, one at a time, and `full`, as many at once as
    its memory holds.

    The roofline bound (Williams et al. 2009): a step reads all weights and the cache of all that it writes, at the
    memory's bandwidth, and gives each one token; a token in or out takes 2N FLOP at the bf16 peak. Divided by
    EFFICIENCY, unless the assumptions state the speed.

    Raises:
        ElleError: the machine does not hold the model.
    """
    model, row = a.shape(), config_table("gpus")["gpus"][gpu]
    weights, cache = model.stored_bytes, model.kv_cache_bytes()
    batch = _at_once(a, gpu, _fewest(a, gpu, [count]))
    bandwidth, speed = count * row["bandwidth_gbs"] * 1e9, count * row["tflops"] * 1e12
    compute = 2 * model.parameters * (a.tokens_in + a.tokens_out) / speed

    def bound(at_once: int) -> float:
        read = weights / at_once + cache * (a.tokens_in + a.tokens_out / 2)
        return a.tokens_out * read / bandwidth + compute

    ends = {}
    for name, stated, at_once in (("alone", a.alone, 1), ("full", a.full, batch)):
        low, high = EFFICIENCY[name]
        ends[name] = (a.tokens_out / stated,) * 2 if stated else (bound(at_once) / high, bound(at_once) / low)
    return ends


@dataclass(frozen=True)
class PerBriefing:
    """An API: every briefing costs the same.

    As the two others, it has `monthly`, the dollars of a month with `volume` briefings (above 0), and `break_even`, the
    lowest volume per month at which a briefing costs no more than `dollars`: 0 for every volume, None for none.
    """

    dollars: float

    def monthly(self, volume: ArrayLike) -> NDArray:
        return self.dollars * np.asarray(volume, float)

    def break_even(self, dollars: float) -> float | None:
        return 0.0 if self.dollars <= dollars else None


@dataclass(frozen=True)
class AlwaysOn:
    """Machines that are paid for every hour, as many as the volume needs; fixed: dollars per month besides."""

    hourly: float
    seconds: float
    utilisation: float = 1.0
    fixed: float = 0.0

    @property
    def capacity(self) -> float:
        """Briefings per month of one machine."""
        return HOURS * 3600 * self.utilisation / self.seconds

    def saturated(self) -> float:
        """Dollars per briefing of a machine that is given work in all of `utilisation`."""
        return self.hourly * HOURS / self.capacity

    def monthly(self, volume: ArrayLike) -> NDArray:
        machines = np.maximum(1, np.ceil(np.asarray(volume, float) / self.capacity * (1 - 1e-12)))
        return self.fixed + machines * self.hourly * HOURS

    def break_even(self, dollars: float) -> float | None:
        """n machines cost fixed + n · monthly price and make n · capacity at most: the least n that pays."""
        each = self.hourly * HOURS
        gain = dollars * self.capacity - each  # of a machine that is full
        if gain < 0 or (gain == 0 and self.fixed):
            return None
        machines = max(1, math.ceil(self.fixed / gain)) if gain else 1
        return (self.fixed + machines * each) / dollars


@dataclass(frozen=True)
class Serverless:
    """Workers that start when asked and stop after idling, paid by the second. Requests (of `together` briefings each)
    come at random, as a Poisson process; alone and full: seconds for a briefing, as `seconds` gives them."""

    per_second: float
    alone: float
    full: float
    cold_start: float
    idle: float
    together: int = 1
    fixed: float = 0.0

    def monthly(self, volume: ArrayLike) -> NDArray:
        """A request keeps the first worker awake for its work and the idle time, D seconds. At a rate of r requests per
        second it is awake for a share 1 − e^(−rD) of the time, and a share e^(−rD) of requests finds it asleep and pays
        its start (the busy periods of an M/D/∞ queue; Takács 1962). Beyond what one worker can do, as many as the work
        needs are awake, and always full."""
        each = np.asarray(volume, float) / (HOURS * 3600)  # briefings per second
        rate = each / self.together
        held = rate * (self.alone + (self.together - 1) * self.full + self.idle)
        awake = np.maximum(-np.expm1(-held), each * self.full)
        return self.fixed + self.per_second * HOURS * 3600 * (awake + rate * np.exp(-held) * self.cold_start)

    def isolated(self) -> float:
        """Dollars per briefing where requests are so rare that each finds no worker."""
        work = self.alone + (self.together - 1) * self.full
        return self.per_second * (self.cold_start + work + self.idle) / self.together

    def saturated(self) -> float:
        """Dollars per briefing where workers are always full."""
        return self.per_second * self.full

    def break_even(self, dollars: float) -> float | None:
        from scipy.optimize import brentq

        def over(log: float) -> float:
            return math.log(float(self.monthly(math.exp(log))) / (dollars * math.exp(log)))

        low, high = 0.0, math.log(1e12)  # dollars per briefing fall with the volume
        return 0.0 if over(low) <= 0 else None if over(high) > 0 else math.exp(brentq(over, low, high, xtol=1e-9))


Curve = PerBriefing | AlwaysOn | Serverless


@dataclass(frozen=True)
class Option:
    """A way to have briefings written: what it costs where all is cheap and fast, and where all is dear and slow."""

    name: str
    kind: str  # api, always on, serverless
    low: Curve
    high: Curve

    @property
    def ends(self) -> tuple[Curve, Curve]:
        return self.low, self.high

    def break_even(self, dollars: float) -> list[float | None]:
        """The volume per month from which on it costs no more than `dollars` per briefing, lowest and highest; None: at
        no volume."""
        return sorted((end.break_even(dollars) for end in self.ends), key=lambda at: math.inf if at is None else at)


def api(a: Assumptions, name: str) -> float:
    """Dollars per briefing by the API of that name, at its list price.

    Raises:
        ElleError: there is no such API in configs/prices.yaml.
    """
    listed = config_table("prices")["apis"]
    if name not in listed:
        raise unknown("API", name, listed, where="configs/prices.yaml")
    row = listed[name]
    return (row["tokens_in"] * a.tokens_in + row["tokens_out"] * a.tokens_out) * row.get("tokens", 1) / 1e6


def options(a: Assumptions = Assumptions()) -> list[Option]:
    """What there is to choose from: the APIs, the always-on machine, and each class of serverless workers."""
    prices, fixed = config_table("prices"), a.training / a.months
    ways = [Option(row["title"], "api", *(PerBriefing(api(a, name)),) * 2) for name, row in prices["apis"].items()]
    machine = a.always_on()
    ends = zip(hardware.hourly(machine), seconds(a, machine.name, machine.count)["full"], strict=True)
    low, high = (AlwaysOn(hourly, each, a.utilisation, fixed) for hourly, each in ends)
    ways.append(Option(f"always on: {machine}", "always on", low, high))
    for row in prices["serverless"].values():
        counts = [count for count in COUNTS if count <= row["gpus"] and _at_once(a, row["like"], count)]
        if not counts:
            continue
        dollars, times = counts[0] * row["per_second"], seconds(a, row["like"], counts[0])
        low, high = (
            Serverless(dollars, alone, full, a.cold_start, a.idle, a.together, fixed)
            for alone, full in zip(times["alone"], times["full"], strict=True)
        )
        ways.append(Option(f"serverless: {counts[0]} x {row['title']}", "serverless", low, high))
    return ways


def measured_tokens(run: Path | str) -> dict[str, float]:
    """What a run's own outputs say: tokens_in and tokens_out, the means per briefing of its trained model, by that
    model's tokenizer; and tokens_per_second, the highest throughput that notebook 08 saw.

    Raises:
        ElleError: the run has no outputs.
    """
    from elle.evaluation import cost

    folder = Path(run) if Path(run).is_dir() else paths.run_folder(str(run))
    took = cost.request_means(storage.read_lines(folder / "outputs" / "tuned.jsonl"))
    found = {"tokens_in": took["prompt_tokens"], "tokens_out": took["completion_tokens"]}
    if None in found.values():
        raise ElleError("these outputs do not say their tokens", where=str(folder), fix="run notebook 07 again")
    served = folder / "manifests" / "08_serve_vllm.json"
    speed = storage.read_json(served)["metrics"]["tokens_per_second"] if served.exists() else 0.0
    return {name: round(each.value, 1) for name, each in found.items()} | {"tokens_per_second": speed}


def sizes(run: Path | str) -> dict[str, dict[str, float]]:
    """Tokens of a briefing as `Assumptions` takes them: the source plans', and a run's own if it has outputs."""
    tokens = {"the documents' briefing": {each.name: each.default for each in fields(Assumptions)[:2]}}
    if (Path(run) / "outputs" / "tuned.jsonl").exists():
        own = measured_tokens(run)
        tokens["this run's briefing"] = {name: own[name] for name in ("tokens_in", "tokens_out")}
    return tokens


def compare_costs(a: Assumptions = Assumptions()) -> dict[str, Any]:
    """The whole comparison as one JSON value. Each option: dollars per briefing at VOLUMES, when its machines are
    always full and, serverless, when each request finds none awake; and its break-even with each API, briefings per
    month (null: at no volume). Everything as low and high."""
    prices, machine = config_table("prices"), a.always_on()
    apis = {row["title"]: api(a, name) for name, row in prices["apis"].items()}
    rows = []
    for option in options(a):
        # A slow worker is awake for longer and starts less often: it may be the cheaper end.
        volumes = {str(n): _ends(sorted(float(end.monthly(n)) / n for end in option.ends)) for n in VOLUMES}
        row = {"option": option.name, "kind": option.kind, "dollars_a_briefing": volumes}
        if option.kind != "api":
            row["full"] = _ends(sorted(each.saturated() for each in option.ends))
            row["break_even"] = {title: _ends(option.break_even(price)) for title, price in apis.items()}
        if option.kind == "serverless":
            row["isolated"] = _ends(sorted(each.isolated() for each in option.ends))
        rows.append(row)
    return {
        "assumptions": asdict(a),
        "machine": str(machine),
        "hourly": _ends(hardware.hourly(machine)),
        "options": rows,
        "documents": prices["documents"],
        "rests_on": cost_basis(a),
    }


def _ends(values: Iterable[float | None]) -> dict[str, float | None]:
    return dict(zip(("low", "high"), (each and float(f"{each:.6g}") for each in values), strict=True))


def cost_basis(a: Assumptions) -> list[str]:
    """What the figures rest on, a line each."""
    prices, machine = config_table("prices"), a.always_on()
    low, high = map(money, hardware.hourly(machine))
    (slow, fast), (slow_full, fast_full) = EFFICIENCY["alone"], EFFICIENCY["full"]
    alone = f"{slow:.0%} to {fast:.0%} of the memory's bandwidth"
    full = f"{slow_full:.0%} to {fast_full:.0%} of what bandwidth and bf16 peak allow, {AT_ONCE} at once at most"
    return [
        f"a briefing: {a.tokens_in:g} tokens in, {a.tokens_out:g} out, by {a.shape().name}",
        f"always on: {machine}, {low} to {high} dollars an hour ({machine.priced}), {HOURS} hours a month, given work "
        f"in {a.utilisation:.0%} of them",
        f"serverless: {prices['serverless_source']}, {prices['serverless_priced']}; {a.cold_start:g} s to start, "
        f"{a.idle:g} s idle after the last; requests at random times, for {a.together} at once",
        f"APIs: {prices['apis_source']}, {prices['apis_priced']}",
        f"speed of one briefing alone: {f'{a.alone:g} tokens a second' if a.alone else alone}",
        f"speed when full: {f'{a.full:g} tokens a second' if a.full else full}",
        f"training: {money(a.training)} dollars, paid off in {a.months:g} months",
        "not counted: people's time, evaluation, storage, traffic, failures; APIs' discounts for batches and caches",
        "to change any of it, -p NAME VALUE: " + " ".join(each.name for each in fields(a)),
    ]


def money(value: float) -> str:
    """An amount with three significant figures: 0.00125, 2.55, 2,910."""
    return f"{Decimal(f'{value:.3g}'):,f}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}"


def _span(ends: Mapping[str, float | None]) -> str:
    low, high = ({None: "never", 0.0: "always"}.get(ends[end]) or money(ends[end]) for end in ("low", "high"))
    return low if low == high else f"{low} to {high}"


def cost_rows(comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """Dollars per briefing as rows of a table, from `compare_costs`'s answer."""
    rows = []
    for option in comparison["options"]:
        ends = {"one alone": option.get("isolated")}
        ends |= {f"{volume:,} a month": option["dollars_a_briefing"][str(volume)] for volume in VOLUMES}
        ends |= {"always full": option.get("full")}
        spans = {name: _span(each) if each else "" for name, each in ends.items()}
        rows.append({"dollars a briefing": option["option"]} | spans)
    return rows


def break_even_rows(comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """From how many briefings per month on each self-hosted option is cheaper than each API, as rows of a table."""
    hosted = [option for option in comparison["options"] if "break_even" in option]
    return [
        {"cheaper from, a month": option["option"]}
        | {f"than {title}": _span(ends) for title, ends in option["break_even"].items()}
        for option in hosted
    ]


def claim_rows(comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """The source plans' figures beside these (against the dearest API, which favours them), as rows of a table."""
    claimed, rows = comparison["documents"], {row["option"]: row for row in comparison["options"]}
    apis = {name: row["dollars_a_briefing"]["1000"]["low"] for name, row in rows.items() if row["kind"] == "api"}
    cheap, *_, dear = sorted(apis, key=apis.get)
    machine = rows[f"always on: {comparison['machine']}"]
    full, few = machine["full"], machine["dollars_a_briefing"]["10000"]

    def times(ends: Mapping[str, float]) -> str:
        return _span({"low": apis[dear] / ends["high"], "high": apis[dear] / ends["low"]})

    gain = apis[dear] - full["high"]
    break_even = claimed["break_even_briefings"]
    trained = break_even * claimed["haiku"]  # what their break-even takes a training to cost
    paid = f"{money(trained / gain)} for a training of {money(trained)}" if gain > 0 else "never for a training"
    where, even = f"({comparison['machine']}, always on)", _span(machine["break_even"][dear])
    small, large = money(claimed["self-hosted-7b"]), money(claimed["self-hosted-72b"])
    ours = {
        "a briefing by Haiku": f"{money(apis[cheap])} ({cheap}) to {money(apis[dear])} ({dear})",
        "a briefing, self-hosted": f"{_span(full)} always full, {_span(few)} at 10,000 a month {where}",
        "times cheaper": f"{times(full)} always full, {times(few)} at 10,000 a month (than {dear})",
        "break-even, briefings": f"{even} a month for the machine; {paid}, if it is always full",
    }
    haiku, cheaper = money(claimed["haiku"]), money(claimed["times_cheaper"])
    theirs = (haiku, f"{small} (7B), {large} (72B)", cheaper, money(break_even))
    lines = zip(ours.items(), theirs, strict=True)
    return [{"the documents": name, "said": figure, "here": here} for (name, here), figure in lines]


def costs_text(comparison: Mapping[str, Any]) -> str:
    """`compare_costs`'s answer for people."""
    tables = [aligned(rows) for rows in (cost_rows(comparison), break_even_rows(comparison), claim_rows(comparison))]
    return "\n\n".join([*tables, "\n".join(["rests on", *(f"  {line}" for line in comparison["rests_on"])])])
