"""What briefings cost: the closed forms, the stated figures they must give, and what the command says."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.plan import hardware
from helpers import cli, economics
from helpers.economics import AlwaysOn, Assumptions, Serverless

REFUSALS = yaml_files.read_yaml(paths.root() / "tests" / "fixtures" / "refusals.yaml")
MONTH = economics.HOURS * 3600
#: A 24 GB card and an H100 with the speeds that the estimates below take: tokens a second alone, and when full.
CARD = Serverless(0.00019, 700 / 47, 700 / 400, cold_start=35, idle=60)
H100 = Serverless(0.00116, 700 / 140, 700 / 3500, cold_start=35, idle=60)


@pytest.fixture(autouse=True)
def _list_prices(monkeypatch):
    monkeypatch.delenv(hardware.PRICE, raising=False)


# The stated figures


def test_list_prices_serverless_an_h100_that_is_always_on_and_the_speeds_that_contain_the_estimates():
    names = ("claude-3-haiku", "claude-3.5-haiku", "claude-haiku-4.5")
    assert [economics.api(Assumptions(), name) for name in names] == pytest.approx([0.00125, 0.0040, 0.0050], rel=1e-12)
    assert (CARD.isolated(), H100.isolated()) == pytest.approx((0.021, 0.116), abs=0.0005)
    assert (CARD.saturated(), H100.saturated()) == pytest.approx((0.00033, 0.00023), abs=0.000005)
    (machine,) = (option for option in economics.options() if option.kind == "always on")
    assert machine.break_even(0.0050) == pytest.approx((3.49 * 730 / 0.005, 3.99 * 730 / 0.005), rel=1e-12)
    for gpu, full in (("a10", 400), ("h100", 3500)):
        fast, slow = economics.seconds(Assumptions(), gpu, 1)["full"]
        assert fast < 700 / full < slow
    # By hand: 7,615,616,512 weights of 2 bytes at 3,350 GB/s for each of 700 tokens, and 2 FLOP a weight and token.
    cache = 57_344 * (1500 + 350)
    bound = 700 * (2 * 7_615_616_512 + cache) / 3350e9 + 2 * 7_615_616_512 * 2200 / 989e12
    assert economics.seconds(Assumptions(), "h100", 1)["alone"] == pytest.approx((bound / 0.8, bound / 0.5), rel=1e-9)


# The closed forms


@given(hourly=st.floats(0.1, 50), seconds=st.floats(0.01, 60), fixed=st.floats(0, 500), price=st.floats(1e-5, 0.1))
def test_always_on_pays_from_its_break_even_and_not_before(hourly, seconds, fixed, price):
    machine = AlwaysOn(hourly, seconds, fixed=fixed)
    at = machine.break_even(price)
    volumes = np.geomspace(1, 1e9, 2000)
    cheaper = machine.monthly(volumes) < price * volumes * (1 - 1e-9)
    if at is None:
        assert machine.saturated() >= price * (1 - 1e-9)
        assert not cheaper.any()
    else:
        assert machine.monthly(at) == pytest.approx(price * at)
        assert not cheaper[volumes < at * (1 - 1e-9)].any()


def test_machines_are_added_whole_and_a_training_is_paid_off_by_the_month():
    machine, half = AlwaysOn(2.0, 3600.0), AlwaysOn(2.0, 3600.0, utilisation=0.5)  # 730 briefings a month, or 365
    assert machine.monthly([1, 730, 731, 1460, 1461]).tolist() == [1460, 1460, 2920, 2920, 4380]
    assert (half.monthly(731), half.saturated()) == (3 * 1460, 4.0)
    trained = economics.options(Assumptions(training=600, months=6))
    for with_, without in zip(trained, economics.options(), strict=True):
        dearer = 0 if with_.kind == "api" else 100
        assert float(with_.low.monthly(1000)) == pytest.approx(float(without.low.monthly(1000)) + dearer)


@settings(deadline=None)
@given(
    alone=st.floats(0.5, 100), ratio=st.floats(0.01, 1), cold=st.floats(0, 300), idle=st.floats(0, 600),
    together=st.integers(1, 50), price=st.floats(1e-5, 0.1),
)  # fmt: skip
def test_a_serverless_briefing_gets_cheaper_with_the_volume(alone, ratio, cold, idle, together, price):
    worker = Serverless(0.001, alone, alone * ratio, cold, idle, together)
    volumes = np.geomspace(1e-3, 1e11, 400)
    each = worker.monthly(volumes) / volumes
    assert each[0] == pytest.approx(worker.isolated(), rel=1e-3)
    assert each[-1] == pytest.approx(worker.saturated(), rel=1e-3)
    assert (np.diff(each) <= 1e-9 * each[:-1]).all()
    at = worker.break_even(price)
    assert at is not None or worker.saturated() >= price * (1 - 1e-6)
    if at == 0:
        assert worker.monthly(1) <= price * (1 + 1e-9)
    elif at is not None:
        assert worker.monthly(at) == pytest.approx(price * at, rel=1e-6)


def test_the_awake_time_is_that_of_simulated_requests():
    """Poisson arrivals, played through: when the worker is awake, and how many find it asleep."""
    rng, volume = np.random.default_rng(3), 40_000
    arrivals = np.cumsum(rng.exponential(MONTH / volume, 200_000))
    held = CARD.alone + CARD.idle
    gaps = np.diff(arrivals)
    paid = np.minimum(gaps, held).sum() + CARD.cold_start * (gaps > held).sum()
    simulated = CARD.per_second * paid / len(gaps)
    assert float(CARD.monthly(volume)) / volume == pytest.approx(simulated, rel=0.01)


# Assumptions


@pytest.mark.parametrize(("values", "message"), REFUSALS["assumptions"])
def test_an_assumption_that_cannot_be_is_refused(values, message):
    with pytest.raises(ElleError) as caught:
        Assumptions.given(values)
    assert message in str(caught.value)


def test_every_assumption_changes_something_and_is_on_the_page():
    base = json.dumps(economics.compare_costs()["options"])
    changed = {"model": "qwen2.5-14b", "gpu": "h200", "gpus": 2, "together": 20, "price": 1.0, "utilisation": 0.5}
    changed |= {"tokens_in": 100.0, "tokens_out": 100.0, "alone": 10.0, "full": 100.0, "training": 50.0}
    changed |= {"cold_start": 5.0, "idle": 5.0}
    for name, value in changed.items():
        assert json.dumps(economics.compare_costs(replace(Assumptions(), **{name: value}))["options"]) != base, name
    listed = re.findall(r"^\| `(\w+)` \|.*\| (\S+) \|$", (paths.root() / "docs" / "costs.md").read_text(), re.MULTILINE)
    assert {name for name, _ in listed} == {*changed, "months"} == set(economics.compare_costs()["assumptions"])
    assert Assumptions.given(dict(listed)) == Assumptions()


def test_a_gpu_is_found_however_it_is_written():
    """A KeyError with its traceback."""
    assert economics.compare_costs(Assumptions(gpu="H100"))["options"] == economics.compare_costs()["options"]


def test_what_does_not_fit_is_left_out_and_72b_on_two_h100_never_pays():
    found = economics.compare_costs(Assumptions(model="qwen2.5-72b"))
    hosted = {row["option"]: row["break_even"] for row in found["options"] if row["kind"] != "api"}
    assert list(hosted) == ["always on: 2 x H100 SXM", "serverless: 2 x H100"]
    assert {end for row in hosted.values() for ends in row.values() for end in ends.values()} == {None}
    assert "never" in economics.costs_text(found)


def test_what_the_page_says_is_so():
    """docs/costs.md's prose; it must be read again when this changes."""
    rows = {row["option"]: row for row in economics.compare_costs()["options"]}
    haiku, newest = "Claude Haiku 4.5", "Claude Haiku 5.5"
    prices = [row["dollars_a_briefing"]["1000"]["low"] for row in rows.values() if row["kind"] == "api"]
    alone = [row["isolated"]["low"] for row in rows.values() if row["kind"] == "serverless"]
    assert min(alone) > max(prices)  # "cost more on serverless GPUs than by any of these APIs"
    assert economics.compare_costs()["documents"]["haiku"] >= 100 * max(prices)
    even = rows["always on: 1 x H100 SXM"]["break_even"]
    assert 500_000 < even[haiku]["low"] < even[haiku]["high"] < 600_000
    assert 3.5e6 < even[newest]["low"] < even[newest]["high"] < 4.5e6
    worker = rows["serverless: 1 x 24 GB"]["break_even"]
    assert (worker[haiku]["low"], worker[newest]["high"]) == pytest.approx((100_000, 770_000), rel=0.02)


def test_tokens_of_a_run():
    answer = {"output": "{}", "completion_tokens": 50, "seconds": 1.0}
    lines = [answer | {"id": str(n), "prompt_tokens": 100 + n} for n in range(3)]
    storage.write_lines(paths.runs() / "r" / "outputs" / "tuned.jsonl", lines)
    assert economics.measured_tokens("r") == {"tokens_in": 101.0, "tokens_out": 50.0, "tokens_per_second": 0.0}
    text = CliRunner().invoke(cli.cli, ["costs", "--run", "r", "-p", "tokens_out", "60", "--json"])
    assumed = json.loads(text.output)["assumptions"]
    assert (assumed["tokens_in"], assumed["tokens_out"]) == (101.0, 60.0)
    with pytest.raises(ElleError):
        economics.measured_tokens("none")


def test_the_command_says_what_it_rests_on_and_what_the_documents_said():
    text = CliRunner().invoke(cli.cli, ["costs", "--trained-by", "starter"]).output
    planned = json.loads(CliRunner().invoke(cli.cli, ["plan", "starter", "--json"]).stdout)["dollars"]["high"]
    for part in ("0.00125", "510,000 to 583,000", "list prices", f"training: {planned:.3g} dollars"):
        assert part in text
    documents = {row["the documents"]: row for row in economics.claim_rows(economics.compare_costs())}
    assert documents["a briefing by Haiku"]["said"] == "0.5"
    assert documents["break-even, briefings"]["here"].startswith("510,000 to 583,000 a month")


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "words",
    ["plan configs/config.yaml --budget", "plan three-hours --budget", "plan configs/config.yaml --price",
     "plan configs/config.yaml --disk", "costs -p price", "costs -p training", "costs -p months",
     "run nano -p price", "evaluate --data {data} --endpoint http://127.0.0.1:9 --model m --price"],
)  # fmt: skip
def test_what_is_no_finite_number_is_no_price_budget_or_limit(words, number, small_data):
    """Of NaN no comparison holds: it would pass every limit."""
    failure = CliRunner().invoke(cli.cli, [*words.format(data=small_data).split(), number]).exception
    assert isinstance(failure, ElleError)
    assert re.search(rf"\b{number}\b", str(failure))
