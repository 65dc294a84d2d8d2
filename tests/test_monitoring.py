"""monitoring/: its files are valid, name metrics that exist, and alert when, and only when, there is trouble."""

import re
import subprocess
import time

import pytest
import watching
import yaml
from click.testing import CliRunner
from contract import Response, Route, Server
from test_serving import Fake, completion
from watching import FOLDER, Prometheus, fetched, free_port, listed, tool, types

from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation.parsing import parse_output
from elle.evaluation.verdict import judge
from elle.serving.client import Answer
from elle.serving.exporter import OUTCOMES, VERDICTS, Exporter, outcome_of
from helpers.cli import cli


@pytest.fixture
def row(small_data) -> tuple[str, str]:
    """A prompt and its reference."""
    _, prompt, reference = (turn["value"] for turn in dataset.read_split(small_data, "test")[0]["conversations"])
    return prompt, reference


# ---- the files


def test_every_expression_uses_names_that_exist():
    with Exporter(0, dollars_per_hour=1) as exporter:
        ours = types(fetched(f"http://127.0.0.1:{exporter.port}/metrics"))
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
    known = {name + suffix for name, kind in (listed() | ours).items() for suffix in suffixes.get(kind, ("",))}
    known |= {"up", "ALERTS"}
    expressions = watching.queries() | {rule["alert"]: rule["expr"] for rule in watching.rules()}
    assert len(expressions) > 30
    for name, text in expressions.items():
        bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[\w+\]|\b(?:by|on|group_left) \([^)]*\)', " ", text)
        used = set(re.findall(r"\b[a-zA-Z_][\w:]*\b(?!\s*\()", bare)) - {"and", "or", "on", "by"}
        assert used, name
        assert used <= known, (name, used - known)
        rates = set(re.findall(r"(?:rate|increase)\((\S+?)(?:\{[^}]*\})?\[", text))
        assert all(name.endswith(("_total", "_bucket")) for name in rates), rates
        for label, values in re.findall(r'(verdict|outcome)[!=]~?"([^"]*)"', text):
            assert set(values.split("|")) <= {"verdict": set(VERDICTS), "outcome": set(OUTCOMES)}[label]


def test_templates_hold_no_absolute_path_no_key_and_loopback_only():
    for path in FOLDER.rglob("*.*"):
        text = path.read_text()
        assert not re.search(r"(?<![\w/.:<*])/(?:home|work|tmp|root|etc|var|usr)\b", text), path
        assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", text)) <= {"127.0.0.1"}, path
        assert "credentials:" not in text


def test_panels_and_alerts_say_what_they_show_and_what_to_do_and_alerts_are_tested_both_ways():
    for panel in (panel for panel in watching.dashboard()["panels"] if panel["type"] != "row"):
        assert panel["description"]
        seconds = all(re.search(r"_seconds(_bucket)?\b", target["expr"]) for target in panel["targets"])
        assert (panel["fieldConfig"]["defaults"]["unit"] == "s") == seconds, panel["title"]
        assert {"${datasource}"} == {each["datasource"]["uid"] for each in (panel, *panel["targets"])}
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    checks = {(check["alertname"], "exp_alerts" in check) for test in tests for check in test["alert_rule_test"]}
    assert checks == {(rule["alert"], fires) for rule in watching.rules() for fires in (True, False)}
    readme = (FOLDER / "README.md").read_text()
    assert all(";" in rule["annotations"]["summary"] and rule["alert"] in readme for rule in watching.rules())


@pytest.mark.parametrize("words", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_agrees(words):
    done = subprocess.run([tool("promtool"), *words], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- what the client counts


def test_each_way_of_being_wrong_has_its_verdict(row):
    prompt, good = row
    outputs = {
        "right": good,
        "wrong": re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), good, count=1),
        "not_schema": "{}",
        "code_fence": f"```json\n{good}\n```",
        "prose": f"Here it is: {good}",
        "no_json": good[:-5],
    }
    assert outputs.keys() == set(VERDICTS)
    assert [outcome_of(judge("x", prompt, good, text)) for text in outputs.values()] == list(outputs)
    # The two ways that `parse_output` names in words: another wording there would fall back to no_json in silence.
    assert parse_output(outputs["code_fence"]).how == "from a code fence"
    assert parse_output(outputs["prose"]).how == "from surrounding prose"
    assert outcome_of(judge("x", prompt, good, None)) == "no_json"


def test_requests_tokens_seconds_verdicts_and_the_price_are_shown(row):
    prompt, good = row
    with Exporter(0, server="http://a/v1", dollars_per_hour=4.59) as exporter:
        url = f"http://127.0.0.1:{exporter.port}/metrics"
        before = fetched(url)
        ends = (("stop", None), ("length", None), ("", "no connection"))
        exporter.arrived([Answer(end, "", end, 100, 20, 0.3, error) for end, error in ends])
        exporter.judged(judge("a", prompt, good, good))
        after = fetched(url)
        assert exporter._http.server_address[0] == "127.0.0.1"  # others cannot reach it
        with pytest.raises(ElleError, match=f"port {exporter.port} cannot be used"):
            Exporter(exporter.port)
    counted = {f'elle_requests_total{{outcome="{name}"}} 1.0' for name in ("answered", "cut_off", "failed")}
    counted |= {'elle_tokens_total{kind="prompt"} 200.0', 'elle_tokens_total{kind="completion"} 40.0'}
    counted |= {"elle_request_duration_seconds_sum 0.6", 'elle_briefings_total{verdict="right"} 1.0'}
    counted |= {'elle_server_dollars_per_hour{server="http://a/v1"} 4.59'}
    assert counted <= set(after.splitlines())
    # A series that begins with its first count has no rate: the first failure would be overlooked.
    assert all(f'="{each}"}} 0.0' in before for each in (*VERDICTS, "failed"))
    assert good[:40] not in after
    with pytest.raises(OSError, match="refused"):
        fetched(url)


def test_evaluate_counts_what_it_asks(small_data, tmp_path, row):
    """Read while the command runs: the exporter ends with it."""
    port, seen = free_port(), []

    def complete(*_) -> tuple[int, dict]:
        # Answers are counted as they come, not when all are there.
        answered = f'elle_requests_total{{outcome="answered"}} {len(seen)}.0'
        for _ in range(100):
            if answered in (text := fetched(f"http://127.0.0.1:{port}/metrics")):
                break
            time.sleep(0.05)
        seen.append(text)
        return 200, completion("no JSON")

    words = ["evaluate", "--data", str(small_data), "--model", "m", "--outputs", str(tmp_path / "o.jsonl")]
    words += ["--limit", "3", "--concurrency", "1", "--price", "2", "--metrics-port", str(port)]
    with Fake(complete) as server:
        done = CliRunner().invoke(cli, [*words, "--endpoint", server.url], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert 'elle_requests_total{outcome="answered"} 2.0' in seen[-1]
    assert 'elle_briefings_total{verdict="no_json"}' in seen[-1]
    assert f'elle_server_dollars_per_hour{{server="{server.url}"}} 2.0' in seen[-1]


# ---- the real Prometheus


@pytest.mark.real
def test_alerts_fire_in_the_real_prometheus(tmp_path, row):
    """Answers that are no JSON; then a server that stops. It stands in for vLLM behind a proxy that wants the key."""
    tool("prometheus")
    prompt, good = row

    def show(request) -> Response:
        if request.token != "a-key":
            return Response(401)
        return Response(200, b'http_requests_total{status="2xx"} 1\n', {"Content-Type": "text/plain"})

    service = type("Metrics", (), {"routes": [Route("metrics", "GET", "/metrics", show)]})
    with Exporter(0, dollars_per_hour=1) as exporter, Server(service) as server:
        options = {"server": server.url.removeprefix("http://"), "client": f"127.0.0.1:{exporter.port}", "key": "a-key"}
        with Prometheus(tmp_path, **options) as prometheus:
            assert prometheus.until(lambda: len(prometheus.query("up == 1")) == 2), prometheus.query("up")
            # Before the first look no server is known: the minute that the rule itself waits covers that, a second not.
            assert prometheus.until(lambda: prometheus.firing() == {}), prometheus.firing()
            for _ in range(3):  # a rate needs two scrapes
                exporter.judged(judge("x", prompt, good, "no JSON"))
                time.sleep(1)
            assert prometheus.until(lambda: "ElleNotJson" in prometheus.firing()), prometheus.get("rules")
            assert prometheus.firing().keys() == {"ElleNotJson"}
            assert "100% of the answers" in prometheus.firing()["ElleNotJson"]
            server.fail(drop="request", times=float("inf"))
            assert prometheus.until(lambda: "ElleServerDown" in prometheus.firing())
            assert options["server"] in prometheus.firing()["ElleServerDown"]
        assert not prometheus.job.running
