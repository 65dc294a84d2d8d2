"""The report card: of a run with everything, of an older or unfinished one, and of one not to be trusted."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation import audit, compare, scorecard
from helpers import cli, plots
from helpers.runs import report

CPU, CUDA = "cpu, because nvidia-smi is not installed here.", "cuda, because 1 x H200 can be used (driver 570)."
STEPS = {
    "03_generate_data": {"kind": "basic", "rows": {"train": 180, "validation": 10, "test": 10}},
    "05_train": {
        "recipe": "configs/nano.yaml", "steps": 800, "seconds": 360.0, "precision": "bf16, because it can.",
        "red_flags": [], "forced": [],
        "trainings": [{"training": "full", "of": 1_763_328, "tokens a second": 8832.1, "validation loss": None}],
    },
    "08_serve_vllm": {
        "tokens_per_second": 3000.0,
        "points": [
            {"concurrency": c, "constrained": held, "requests": 40, "failed": 4, "seconds": 3.6, "tokens_per_second": n}
            for c, held, n in ((1, False, 300.0), (16, False, 3000.0), (32, True, 9999.0))
        ],
    },
}  # fmt: skip


def finish(folder: Path, step: str, metrics: dict, device: str = CPU, **more) -> Path:
    """A step's manifest."""
    manifest = {"step": step, "started": f"2026-11-22T12:{step[:2]}:00+00:00", "seconds": 10.0, "inputs": {}}
    manifest |= {"parameters": {"seed": 7}, "device": device, "versions": {"python": "3.12.1"}, "metrics": metrics}
    return storage.write_json(folder / "manifests" / f"{step}.json", manifest | more)


@pytest.fixture(scope="module")
def evaluated(small_data):
    """What notebook 07 measures of four models, and their lines in the outputs' files."""
    rows = dataset.read_split(small_data, "train", limit=12)
    right = {row["id"]: row["conversations"][2]["value"] for row in rows}
    names = list(right)
    wrong = right | {names[0]: re.sub(r"\d", "9", right[names[0]])}
    wrong[names[1]] = right[names[1]].replace('"nsm":"', '"nsm":"Nothing of this has a form. ')
    wrapped = wrong | {name: f"Here it is: {right[name]}" for name in names[1:8]}
    outputs = {"base": dict.fromkeys(names, "<script>noise</script>"), "tuned": wrong, "adapter": wrapped}
    outputs["constrained"] = right
    cards = {model: scorecard.score(rows, texts) for model, texts in outputs.items()}
    compared = {model: compare.compare(cards["tuned"], cards[model]) for model in ("adapter", "constrained")}
    tokens = {"prompt_tokens": 100, "completion_tokens": 150}
    lines = {model: [{"id": n, "output": t} | tokens for n, t in texts.items()] for model, texts in outputs.items()}
    metrics = {
        "scorecards": {model: card.to_json() for model, card in cards.items()},
        "differences": {model: found.to_json() for model, found in compared.items()},
    }
    return metrics, lines


@pytest.fixture
def run(tmp_path, evaluated):
    """A run with everything but a plan."""
    folder = tmp_path / "runs" / "whole"
    metrics, lines = evaluated
    for step, measured in STEPS.items():
        finish(folder, step, measured)
    finish(folder, "07_evaluate", metrics)
    for model, answers in lines.items():
        storage.write_lines(folder / "outputs" / f"{model}.jsonl", answers)
    (folder / "figures").mkdir()
    for name in ("loss", "compliance", "risk_map", "mine_own"):
        plots.planning.step_seconds({"a": 1.0, "b": 2.0}).savefig(folder / "figures" / f"{name}.png", dpi=50)
    return folder


def text(page: Path) -> str:
    return re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))


def test_the_page_holds_every_figure_with_its_version_and_interval(run, evaluated):
    page = text(report.write_report(run))
    card = storage.read_json(run / "report.json")
    cards = evaluated[0]["scorecards"]
    assert card["warnings"] == []
    for name, meaning in scorecard.METRICS.items():
        assert f"{name}</strong> v{meaning.version}:" in page
        assert card[name] == cards["tuned"]["metrics"][name]
        for model in ("adapter", "constrained", "base"):
            assert report.interval(cards[model]["metrics"][name]) in page
    for record in card["worst"]:
        assert record["id"] in page
    assert "<mark" in page
    assert page.count("data:image/png;base64,") == 4
    assert len(page.encode()) < 1_000_000
    for outside in ("http://", "https://", "<script", str(run)):
        assert outside not in page


def test_strict_figures_and_differences_stand_where_they_differ(run):
    rows = {row["metric"]: row for row in report.metric_rows(report.report_card(run))}
    recall, strict = rows["numeric_recall"]["cells"], rows["json_strict"]["cells"]
    assert recall["adapter"]["strict"]
    assert not recall["trained"]["strict"]
    assert (strict["trained"]["difference"], recall["constrained"]["difference"][0]) == ("", "+")
    assert strict["adapter"]["difference"].startswith("−58.3")
    # Never rounded up to all.
    assert [report.percent(share) for share in (1.0, 0.9999, None)] == ["100 %", "99.9 %", "undefined"]


def test_the_report_says_how_much_was_read_and_of_what_its_precision_is(run, evaluated):
    page, card = text(report.write_report(run)), storage.read_json(run / "report.json")
    read, precision = (report.percent(card[name]["value"]) for name in ("read", "numeric_precision"))
    assert read != precision
    sentence = (
        f"{precision} of the numbers that were read are right, and {read} of all numbers and sentences were read."
    )
    assert report.overall_verdict(card).endswith(sentence)
    assert f"<b>{read}</b>of the numbers and sentences were read" in page
    assert f"<b>{precision}</b>of the numbers that were read are right" in page
    assert 'title="not read"' in page
    assert report.summary(card)["base read"] == "undefined"  # noise has no object, and nothing to read


def test_what_forbids_trust_stands_before_the_figures(run, evaluated, small_data):
    metrics = json.loads(json.dumps(evaluated[0]))
    metrics["scorecards"]["adapter"]["coverage"]["outputs"] -= 2
    forced = {"forced": ["the data is <b>bad</b>"], "red_flags": ["loss", "decay"]}
    finish(run, "05_train", STEPS["05_train"] | forced)
    finish(run, "07_evaluate", metrics, inputs={"05_train": "another", "configs/nano.yaml": "abc"})
    shutil.copytree(small_data, run / "data")
    splits = storage.read_json(run / "data" / "manifest.json")["splits"]
    files = {split: facts["sha256"] for split, facts in splits.items()}
    storage.write_json(run / "data" / audit.AUDIT, {"faults": ["9 duplicates", "x"], "files": files})
    card = report.report_card(run)
    page = text(report.write_report(run))
    head = page[: page.index('class="tiles"')]
    for warning in (
        "the data fails its audit: 9 duplicates (and 1 more)",
        "the training was forced: the data is &lt;b&gt;bad&lt;/b&gt;",
        "red flag: loss, decay",
        "adapter: 2 of 12 briefings have no answer",
        "07_evaluate is of another 05_train",
    ):
        assert warning in head
    assert len(card["warnings"]) == 5


def test_an_older_run_says_what_it_lacks(run, evaluated):
    """The manifests of before adapters, differences, health and strict figures."""
    old = json.loads(json.dumps(evaluated[0]))
    del old["differences"], old["scorecards"]["adapter"]
    for card in old["scorecards"].values():
        del card["strict"], card["metrics"]["read"], card["definitions"]["read"]
        for record in card["worst"]:
            del record["unread"]
    finish(run, "07_evaluate", old)
    plain = {name: STEPS["05_train"][name] for name in ("recipe", "steps", "seconds")}
    finish(run, "05_train", plain)
    (run / "outputs" / "base.jsonl").unlink()
    page = text(report.write_report(run))
    card = storage.read_json(run / "report.json")
    assert set(report.missing(card)) == {
        "adapter", "differences", "audit of the data", "health of the training", "the framework's claims",
    }  # fmt: skip
    assert report.overall_verdict(card).endswith("of its numbers are right.")
    assert "base read" not in report.summary(card)
    for name in report.missing(card):
        assert f"{name.replace("'", '&#39;')}: <strong>NOT RUN</strong>" in page


def test_a_run_that_evaluated_nothing_says_so(tmp_path):
    folder = tmp_path / "young"
    with pytest.raises(ElleError, match="no step of this run has finished"):
        report.write_report(folder)
    finish(folder, "03_generate_data", STEPS["03_generate_data"])
    page = text(report.write_report(folder))
    card = storage.read_json(folder / "report.json")
    assert card["not_run"] == ["05_train", "07_evaluate", "08_serve_vllm"]
    assert "Nothing was evaluated in this run: 05_train, 07_evaluate, 08_serve_vllm NOT RUN." in page
    assert report.summary(card)["trained json_strict"] == "NOT RUN"


def test_dollars_follow_the_machine(run):
    cost = report.report_card(run)["cost"]
    assert report.range_text(cost["a_briefing"]) == report.range_text(cost["training"]) == "free"
    for step in ("05_train", "08_serve_vllm"):
        finish(run, step, STEPS[step], device=CUDA)
    assert "the price of the machine is unknown" in report.missing(report.report_card(run))["dollars"]
    plan = {
        "recipe": "configs/nano.yaml",
        "verdict": "fits",
        "hardware": "H200",
        "peak_gb": None,
        "limit_gb": 141.0,
    }
    plan |= {"hours": {"low": 2.0, "high": 3.0}, "dollars": {"low": 8.0, "high": 15.0}}
    finish(run, "04_plan_the_run", {"plan": {"ok": True, "plans": [plan]}})
    cost = report.report_card(run)["cost"]
    assert cost["training"] == {"low": 0.4, "high": 0.5}  # 360 s
    # 36 of 40 requests answered in 3.6 s, at the highest throughput without constraints: 0.1 s each.
    assert cost["a_briefing"]["low"] == pytest.approx(4.0 / 36_000)
    assert "$0.00011 to $0.00014" in text(report.write_report(run))


def test_a_manifest_of_another_version_is_told_with_the_notebook_to_run(run):
    finish(run, "08_serve_vllm", {"tokens_per_s": 3000.0, "points": []})
    with pytest.raises(ElleError, match="this manifest is of another version of the project") as caught:
        report.write_report(run)
    assert "unknown metrics of 08_serve_vllm key 'tokens_per_s'" in caught.value.what
    assert "notebooks/08_serve_vllm.ipynb again" in caught.value.fix


def test_the_command_prints_the_main_figures_of_all_models(run, monkeypatch):
    monkeypatch.setenv("ELLE_RUNS", str(run.parent))
    report.write_report(run)
    printed = CliRunner().invoke(cli.cli, ["report", "whole"]).stdout
    found = dict(re.split(r"  +", line, maxsplit=1) for line in printed.splitlines())
    assert found["verdict"].startswith("Of 12 unseen briefings, 100 % came out as valid JSON")
    for name in report.HEADLINE:
        assert {f"{model} {name}" for model in ("trained", "adapter", "constrained", "base")} <= set(found)
    assert "percentage points" in found["adapter Δ all_right"]
    everything = CliRunner().invoke(cli.cli, ["report", "whole", "--json"]).stdout
    assert json.loads(everything) == storage.read_json(run / "report.json")
