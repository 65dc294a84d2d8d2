"""The tasks for lm-evaluation-harness: the real tool loads them, asks what our own command asks, and its figures are
the same to the last bit."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from test_serving import completion, fake  # noqa: F401

from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation.inputs import read_test_rows
from elle.evaluation.scorecard import METRICS
from helpers import cli

TASKS = paths.root() / "examples" / "lm_eval"


def spoilt(place: int, text: str) -> str:
    """An answer, some of them with a fault."""
    faults = [
        lambda t: t, lambda t: f"```json\n{t}\n```", lambda t: t[:-30], lambda t: t.replace("1", "7", 1),
        lambda t: t.replace("low", "high"), lambda t: "", lambda t: t, lambda t: t[:-1] + ',"x":"70%"}',
    ]  # fmt: skip
    return faults[place % len(faults)](text)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Kind → (data set's folder, outputs by id, a file of them): both kinds, test rows only in the figures."""
    found = {}
    for kind in dataset.KINDS:
        folder = tmp_path_factory.mktemp(kind)
        dataset.build(kind, 500, 11, folder)
        rows = dataset.read_split(folder, "test")
        outputs = {row["id"]: spoilt(n, row["conversations"][2]["value"]) for n, row in enumerate(rows)}
        storage.write_lines(folder / "outputs.jsonl", ({"id": name, "output": text} for name, text in outputs.items()))
        found[kind] = folder, outputs, folder / "outputs.jsonl"
    return found


def own(data, outputs) -> dict[str, float | None]:
    """The figures of our own command."""
    done = CliRunner().invoke(cli.cli, ["evaluate", "--data", str(data), "--outputs", str(outputs), "--json"])
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)
    strict = {
        f"{name}_strict_json": figure for name, figure in card["strict"].items() if not name.startswith(("json", "sch"))
    }
    return {name: figure["value"] for name, figure in (card["metrics"] | strict).items()}


def figures(results: dict, kind: str) -> dict[str, float | None]:
    """The harness's figures of a task."""
    found = results["results"][f"elle_{kind}"]
    return {name.removesuffix(",none"): v for name, v in found.items() if "," in name and "_stderr" not in name}


def evaluated(outputs: dict[str, str], metadata: dict[str, str]) -> tuple[dict, list]:
    """What the harness makes of a model that says `outputs`, and the contexts that it was given."""
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    contexts = []

    class Replay(LM):
        def generate_until(self, requests, disable_tqdm=False):
            contexts.extend((request.doc, request.args) for request in requests)
            return [outputs[request.doc["id"]] for request in requests]

        def loglikelihood(self, requests):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    tasks = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    found = simple_evaluate(
        Replay(), tasks=[f"elle_{kind}" for kind in metadata], task_manager=tasks, bootstrap_iters=0
    )
    return found, contexts


def test_the_harness_and_our_command_agree_exactly(sets):
    outputs = {name: text for _, texts, _ in sets.values() for name, text in texts.items()}
    found, contexts = evaluated(outputs, {kind: str(folder) for kind, (folder, _, _) in sets.items()})
    assert len(contexts) == len(outputs)
    for kind, (folder, _, file) in sets.items():
        theirs, ours = figures(found, kind), own(folder, file)
        assert theirs == ours  # not approximately
        assert set(METRICS) < set(ours)
        assert sum(value == 1 for value in ours.values()) < len(ours) / 2  # the faults are felt
        assert theirs["numeric_recall"] > theirs["numeric_recall_strict_json"]
        assert all(found["higher_is_better"][f"elle_{kind}"].values())
    for doc, (context, options) in contexts:
        assert context.endswith(doc["prompt"])
        assert context.startswith(doc["system"])
        assert options["until"] == []
        assert options["do_sample"] is False


def test_what_is_undefined_stays_so(sets):
    folder, outputs, _ = sets["basic"]
    found, _ = evaluated(dict.fromkeys(outputs, "sorry"), {"basic": str(folder)})
    assert figures(found, "basic")["numeric_precision"] is None


def test_the_data_is_named_by_metadata_or_the_environment_and_must_be_of_the_kind(sets, monkeypatch):
    folder, outputs, file = sets["cic"]
    with pytest.raises(ElleError, match="needs a data set") as caught:
        evaluated(outputs, {"cic": ""})
    assert "ELLE_CIC" in str(caught.value)
    with pytest.raises(ElleError, match="another set"):
        evaluated(outputs, {"basic": str(folder)})
    monkeypatch.setenv("ELLE_CIC", str(folder / "test.jsonl"))
    found, _ = evaluated(outputs, {"cic": ""})
    assert figures(found, "cic") == own(folder, file)


@pytest.mark.real
def test_the_harness_own_command_asks_a_server_the_same_questions(sets, tmp_path, fake):  # noqa: F811
    folder, outputs, file = sets["basic"]
    rows = {json.dumps(dataset.messages(row)): row["id"] for row in read_test_rows(folder)}

    def behave(body, _):
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in body["messages"]]
        return 200, completion(outputs[rows[json.dumps(turns)]])

    server = fake(behave)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [
            sys.executable, "-m", "lm_eval", "--tasks", "elle_basic", "--include_path", str(TASKS),
            "--model", "local-chat-completions", "--apply_chat_template",
            "--model_args", f"model=elle,base_url={server.url}/chat/completions,num_concurrent=4",
            "--metadata", json.dumps({"basic": str(folder)}), "--output_path", str(tmp_path),
        ],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "|elle_basic|" in done.stdout
    results = json.loads(next(tmp_path.rglob("results_*.json")).read_text())
    assert figures(results, "basic") == own(folder, file)
