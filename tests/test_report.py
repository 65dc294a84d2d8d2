"""The report card: of a run with everything, of an older or unfinished one, and of one not to be trusted."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

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


@pytest.fixture(scope="module")
def template(tmp_path_factory, evaluated):
    folder = tmp_path_factory.mktemp("runs") / "whole"
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


@pytest.fixture
def run(tmp_path, template):
    """A run with everything but a plan."""
    return shutil.copytree(template, tmp_path / "runs" / "whole")


def text(page: Path) -> str:
    return re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))


def test_a_report_needs_a_finished_step(tmp_path):
    with pytest.raises(ElleError, match="no step of this run has finished"):
        report.write_report(tmp_path)


def test_figures_read_as_they_are_and_are_never_rounded_up_to_all():
    assert [report.percent(share) for share in (1.0, 0.9999, None)] == ["100 %", "99.9 %", "undefined"]
    assert report.interval(None) == report.range_text(None) == "NOT RUN"
    compared = {"difference": -0.0123, "low": -0.02, "high": 0.0, "p_holm": 0.0004}
    assert report.difference(compared) == "−1.2 [−2.0, 0.0], p < 0.001"
    assert report.difference(compared | {"p_holm": 1.0}).endswith("p = 1")
    assert report.difference(compared | {"difference": None}) == report.difference(None) == ""
    for low, high, shown in ((0.0, 0.0, "free"), (0.0000671, 1234.5, "$0.000067 to $1,234.50"), (2.0, 2.0, "$2.00")):
        assert report.range_text({"low": low, "high": high}) == shown


def test_metrics_and_the_report_share_no_name(run):
    """A metric called `training`, say, would be hidden by the report's own `training`."""
    card = report.report_card(run)
    for name in scorecard.METRICS:
        assert set(card[name]) == {"value", "n", "low", "high"}


def test_the_page_holds_every_figure_with_its_version_and_interval(run, evaluated):
    page = text(report.write_report(run))
    card = storage.read_json(run / "report.json")
    cards = evaluated[0]["scorecards"]
    assert page.index('class="verdict"') < page.index('class="tiles"') < page.index("<table>")
    for name, meaning in scorecard.METRICS.items():
        assert f"{name}</strong> v{meaning.version}:" in page
        assert card[name] == cards["tuned"]["metrics"][name]
        for model in ("adapter", "constrained", "base"):
            assert report.interval(cards[model]["metrics"][name]) in page
    assert card["adapter"] == cards["adapter"]["metrics"]
    assert "<th>trained</th><th>adapter</th><th>constrained</th><th>base</th>" in page
    for record in card["worst"]:
        assert record["id"] in page
    assert "<mark" in page
    assert page.count("data:image/png;base64,") == 4
    assert page.index("mine own") > page.index("2 more</summary>")
    assert len(page.encode()) < 1_000_000
    for outside in ("http://", "https://", "<script", str(run)):
        assert outside not in page


def test_strict_figures_and_differences_stand_where_they_differ(run):
    rows = {row["metric"]: row for row in report.metric_rows(report.report_card(run))}
    recall = rows["numeric_recall"]["cells"]
    assert recall["adapter"]["strict"]
    assert not recall["trained"]["strict"]
    assert not recall["trained"]["difference"]
    assert recall["constrained"]["difference"].startswith("+")
    assert not rows["json_lenient"]["cells"]["adapter"]["strict"]  # that is json_strict, a row of its own
    strict = rows["json_strict"]["cells"]["adapter"]
    assert strict["difference"].startswith("−58.3")
    assert not rows["json_lenient"]["cells"]["adapter"]["sure"]
    assert rows["json_strict"]["coverage"].startswith("12")


def test_a_metric_that_is_undefined_for_all_is_named_beside_the_table(run, evaluated):
    metrics = json.loads(json.dumps(evaluated[0]))
    for card in metrics["scorecards"].values():
        card["metrics"]["of_cic"] = {"value": None, "n": 0, "low": None, "high": None}
        card["definitions"]["of_cic"] = {"version": 3, "definition": "what only CIC rows have"}
        card["coverage"]["judged"] = {"json_strict": 12}
    finish(run, "07_evaluate", metrics)
    page = text(report.write_report(run))
    assert "of_cic</abbr> v3 (n = 0)" in page[page.index("<strong>Undefined here") :]
    assert "12 in 12 rows" in page


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
    assert card["audit"] == {"passed": False, "faults": ["9 duplicates", "x"]}
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
    assert "audit: FAILED" in page
    storage.write_json(run / "data" / audit.AUDIT, {"faults": [], "files": files})
    assert report.report_card(run)["audit"]["passed"]


def test_a_sound_run_has_no_warnings(run):
    digest = storage.sha256(run / "manifests" / "05_train.json")
    serving = run / "manifests" / "08_serve_vllm.json"
    storage.write_json(serving, storage.read_json(serving) | {"inputs": {"05_train": digest}})
    finish(run, "10_report_card", {}, inputs={"05_train": "before"}, whole_run=True)  # it is made anew
    assert report.report_card(run)["warnings"] == []
    assert "Before you trust" not in report.write_report(run).read_text()


def test_an_older_run_says_what_it_lacks(run, evaluated):
    """The manifests of before adapters, differences, health and strict figures."""
    old = json.loads(json.dumps(evaluated[0]))
    del old["differences"], old["scorecards"]["adapter"]
    for card in old["scorecards"].values():
        del card["strict"]
    finish(run, "07_evaluate", old)
    plain = {name: STEPS["05_train"][name] for name in ("recipe", "steps", "seconds")}
    finish(run, "05_train", plain)
    (run / "outputs" / "base.jsonl").unlink()
    page = text(report.write_report(run))
    card = storage.read_json(run / "report.json")
    assert set(report.missing(card)) == {
        "adapter", "differences", "audit of the data", "health of the training", "the framework's claims",
    }  # fmt: skip
    for name in report.missing(card):
        assert f"{name.replace("'", '&#39;')}: <strong>NOT RUN</strong>" in page
    assert "<th>trained</th><th>constrained</th><th>base</th>" in page
    assert report.summary(card)["adapter"] == "NOT RUN"


def test_a_run_that_evaluated_nothing_says_so(tmp_path):
    folder = tmp_path / "young"
    finish(folder, "03_generate_data", STEPS["03_generate_data"])
    page = text(report.write_report(folder))
    card = storage.read_json(folder / "report.json")
    assert card["not_run"] == ["05_train", "07_evaluate", "08_serve_vllm"]
    assert "Nothing was evaluated in this run: 05_train, 07_evaluate, 08_serve_vllm NOT RUN." in page
    assert report.metric_rows(card) == []
    assert report.summary(card)["trained json_strict"] == "NOT RUN"
    assert page.count("NOT RUN") > 8


@pytest.mark.parametrize("priced", [True, False])
def test_dollars_follow_the_machine(run, priced):
    cost = report.report_card(run)["cost"]
    assert report.range_text(cost["a_briefing"]) == report.range_text(cost["training"]) == "free"
    assert cost["requests"]["tuned"]["prompt_tokens"]["value"] == 100
    assert cost["requests"]["tuned"]["seconds"] is None  # the file does not say it

    for step in ("05_train", "08_serve_vllm"):
        finish(run, step, STEPS[step], device=CUDA)
    if priced:
        plan = {
            "recipe": "configs/nano.yaml",
            "verdict": "fits",
            "hardware": "H200",
            "peak_gb": None,
            "limit_gb": 141.0,
        }
        plan |= {"limit_gb": 141.0, "hours": {"low": 2.0, "high": 3.0}, "dollars": {"low": 8.0, "high": 15.0}}
        finish(run, "04_plan_the_run", {"plan": {"ok": True, "plans": [plan]}})
    card = report.report_card(run)
    cost = card["cost"]
    if priced:
        assert cost["an_hour"] == {"low": 4.0, "high": 5.0}
        assert cost["training"] == {"low": 0.4, "high": 0.5}  # 360 s
        # 36 of 40 requests answered in 3.6 s, at the highest throughput without constraints: 0.1 s each.
        assert cost["a_briefing"]["low"] == pytest.approx(4.0 / 36_000)
        assert cost["concurrency"] == 16
        assert "$0.00011 to $0.00014" in text(report.write_report(run))
    else:
        assert cost["an_hour"] is cost["training"] is cost["a_briefing"] is None
        assert "the price of the machine is unknown" in report.missing(card)["dollars"]
        assert "hour of the machine: <strong>NOT RUN</strong>" in text(report.write_report(run))


def test_a_manifest_of_another_version_is_told_with_the_notebook_to_run(run):
    finish(run, "08_serve_vllm", {"tokens_per_s": 3000.0, "points": []})
    with pytest.raises(ElleError, match="this manifest is of another version of the project") as caught:
        report.write_report(run)
    assert "unknown metrics of 08_serve_vllm key 'tokens_per_s'" in caught.value.what
    assert caught.value.where.endswith("manifests/08_serve_vllm.json")
    assert "notebooks/08_serve_vllm.ipynb again" in caught.value.fix


def test_the_command_prints_the_main_figures_of_all_models(run, monkeypatch):
    monkeypatch.setenv("ELLE_RUNS", str(run.parent))
    report.write_report(run)
    printed = CliRunner().invoke(cli.cli, ["report", "whole"]).stdout
    found = dict(re.split(r"  +", line, maxsplit=1) for line in printed.splitlines())
    assert found["verdict"].startswith("Of 12 unseen briefings, 100 % came out as valid JSON")
    for name in scorecard.METRICS:
        assert {f"trained {name}", f"adapter {name}"} <= set(found)
    for name in report.HEADLINE:
        assert {f"constrained {name}", f"base {name}"} <= set(found)
    assert "percentage points" in found["adapter Δ all_right"]
    assert found["dollars a briefing"] == "free"
    everything = CliRunner().invoke(cli.cli, ["report", "whole", "--json"]).stdout
    assert json.loads(everything) == storage.read_json(run / "report.json")


def test_pictures_shrink_and_keep_their_size(run):
    path = run / "figures" / "loss.png"
    small = report.smaller_png(path.read_bytes())
    assert len(small) < path.stat().st_size
    with Image.open(path) as before, Image.open(io.BytesIO(small)) as after:
        assert after.format == "PNG"
        assert after.size == before.size
        assert min(after.convert("RGB").getpixel((0, 0))) >= 254  # white
