"""Recipes, the nano base, and the real trainer: started, joined, interrupted, resumed, explained when it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import psutil
import pytest
import yaml

from helpers import machine, paths
from helpers.errors import ElleError
from helpers.process import Job
from helpers.training import launch, nano, recipe

SMOKE = "configs/smoke.yaml"


# Recipes


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    # A bug of many configs: PyYAML reads 1e-5 as a string.
    path = tmp_path / "x.yaml"
    path.write_text("a: 1e-5\nb: 3E4\nc: -2.5e-3\nd: 5\ne: 0.1\nf: v1e-5\ng: 1.5\n")
    values = recipe.read_yaml(path)
    assert values == {"a": 1e-5, "b": 3e4, "c": -2.5e-3, "d": 5, "e": 0.1, "f": "v1e-5", "g": 1.5}
    assert isinstance(values["d"], int)


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("a: 1\nb: [1\nc: 2\n", "not valid YAML", ":3"),
        ("a: 1\na: 2\n", "appears twice", ":1"),
        ("- a\n- b\n", "not a mapping", ""),
        ("", "not a mapping", ""),
        ("1: a\n", "not a mapping", ""),
        ("a: \x00\n", "not valid YAML", ""),
    ],
)
def test_faulty_yaml_is_named(tmp_path, text, what, where):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ElleError, match=what) as caught:
        recipe.read_yaml(path)
    assert caught.value.where == f"{path}{where}"


def test_an_unknown_recipe_gets_the_nearest_name():
    with pytest.raises(ElleError, match="unknown recipe") as caught:
        recipe.load("configs/nanno.yaml")
    assert "did you mean 'nano.yaml'" in caught.value.fix


def test_a_key_that_axolotl_would_drop_is_refused(tmp_path):
    content = yaml.safe_load((paths.root() / SMOKE).read_text())
    path = tmp_path / "typo.yaml"
    path.write_text(yaml.safe_dump(content | {"learning_rte": 1}))
    with pytest.raises(ElleError, match="learning_rte") as caught:
        recipe.load(path)
    assert "learning_rate" in caught.value.fix
    del content["base_model"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ElleError, match="no base_model"):
        recipe.load(path)


def test_every_recipe_of_the_project_loads():
    for name in recipe.table("recipes")["recipes"]:
        recipe.load(paths.configs() / name)


@pytest.mark.real
def test_the_known_keys_are_those_of_the_installed_axolotl(tmp_path, monkeypatch):
    kept = json.loads(recipe._KEYS.read_text())
    monkeypatch.setattr(recipe, "_KEYS", tmp_path / "keys.json")
    recipe.refresh_known_keys()
    assert json.loads((tmp_path / "keys.json").read_text()) == kept
    assert kept["axolotl"] == metadata.version("axolotl")


# The nano base


def test_the_tokenizer_that_trains_is_the_one_that_serves(small_base, small_data):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(small_base)
    assert type(loaded).__name__.startswith("Qwen2Tokenizer")
    row = json.loads((small_data / "train.jsonl").read_text().splitlines()[0])
    for turn in row["conversations"]:
        ids = loaded(turn["value"])["input_ids"]
        assert loaded.decode(ids) == turn["value"]
        assert len(ids) <= nano.pieces(turn["value"])  # the merges were learned under the very same cuts
    assert loaded.decode(loaded("a↑ ¿日本\n")["input_ids"]) == "a↑ ¿日本\n"
    assert loaded.tokenize(" political 74%") == ["Ġpolitical", "Ġ", "7", "4", "%"]


def test_the_chat_format_is_chatml(small_base):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_base)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_base_is_the_same_every_time_and_made_once(tmp_path, small_data, small_base):
    again = nano.resolve_base("configs/smoke_base.yaml", small_data / "train.jsonl", tmp_path / "base")
    name = "model.safetensors"
    assert (Path(again) / name).read_bytes() == (small_base / name).read_bytes()
    before = (Path(again) / name).stat().st_mtime_ns
    nano.resolve_base("configs/smoke_base.yaml", small_data / "train.jsonl", tmp_path / "base")
    assert (Path(again) / name).stat().st_mtime_ns == before


def test_bad_base_sizes_are_refused(tmp_path, small_data):
    path = tmp_path / "sizes.yaml"
    path.write_text("hiden_size: 64\n")
    with pytest.raises(ElleError, match="hiden_size") as caught:
        nano.resolve_base(str(path), small_data / "train.jsonl", tmp_path / "base")
    assert "hidden_size" in caught.value.fix
    path.write_text("vocab_size: 100\n")
    with pytest.raises(ElleError, match="vocabulary"):
        nano.resolve_base(str(path), small_data / "train.jsonl", tmp_path / "base")
    with pytest.raises(ElleError, match="needs a data set"):
        nano.resolve_base("configs/smoke_base.yaml", None, tmp_path / "base")
    assert nano.resolve_base("", None, tmp_path / "base") is None
    assert nano.resolve_base("Qwen/Qwen2.5-7B-Instruct", None, tmp_path) == "Qwen/Qwen2.5-7B-Instruct"


# Preparing


def prepare(parent, data, base, **changes):
    options = {"base_model": base, "train": data / "train.jsonl", "validation": data / "validation.jsonl"} | changes
    return launch.prepare(options.pop("recipe", SMOKE), parent, **options)


def test_the_same_inputs_lead_to_the_same_folder_and_others_elsewhere(tmp_path, small_data, small_base):
    first = prepare(tmp_path, small_data, small_base)
    assert prepare(tmp_path, small_data, small_base).folder == first.folder
    assert prepare(tmp_path, small_data, small_base, seed=8).folder != first.folder
    assert prepare(tmp_path, small_data, small_base, train=small_data / "test.jsonl").folder != first.folder
    written = yaml.safe_load((first.folder / "axolotl.yaml").read_text())
    assert written == first.config
    assert written["datasets"][0]["path"] == str(small_data / "train.jsonl")
    assert written["test_datasets"][0]["split"] == "train[:16]"


@pytest.mark.parametrize("count", [1, 2])
def test_deepspeed_is_found_from_where_axolotl_is_started_and_left_out_on_one_gpu(
    tmp_path, small_data, monkeypatch, count
):
    gpus = [machine.Gpu("NVIDIA H200", 150.8, "580.95")] * count
    monkeypatch.setattr(machine, "inspect", lambda: machine.Machine("a", 64, 2000.0, 900.0, gpus))
    rows = {split: small_data / f"{split}.jsonl" for split in ("train", "validation")}
    prepared = launch.prepare("configs/config.yaml", tmp_path, **rows)
    if count == 1:
        assert "deepspeed" not in prepared.config
    else:
        assert Path(prepared.config["deepspeed"]) == paths.root() / "deepspeed" / "zero2.json"
        assert "deepspeed" in prepared.inputs
    assert "val_set_size" not in prepared.config


def test_what_cannot_train_is_refused_before_anything_starts(tmp_path, small_data, small_base):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(ElleError, match="empty"):
        prepare(tmp_path, small_data, small_base, train=empty)
    with pytest.raises(ElleError, match="cannot read"):
        prepare(tmp_path, small_data, small_base, train=tmp_path / "none.jsonl")
    with pytest.raises(ElleError, match="no weights"):
        prepare(tmp_path, small_data, tmp_path / "nowhere")
    corrupt = tmp_path / "corrupt.jsonl"
    corrupt.write_text('{"conversations": [\n')
    with pytest.raises(ElleError) as caught:
        prepare(tmp_path, small_data, small_base, train=corrupt)
    assert caught.value.where.endswith("corrupt.jsonl:1")


def test_history_joins_the_attempts_of_an_interrupted_run(tmp_path):
    def event(kind, step, seconds, **values):
        return json.dumps({"event": kind, "step": step, "of": 4, "seconds": seconds} | values)

    path = tmp_path / "progress.jsonl"
    path.write_text(
        "\n".join(
            [
                event("begin", 0, 0.0),
                event("log", 1, 10.0, loss=3.0),
                event("log", 2, 20.0, loss=2.0),
                event("begin", 1, 0.0),
                event("log", 2, 10.0, loss=2.5),
                event("log", 2, 11.0, eval_loss=2.4),
                event("log", 2, 12.0, digit_accuracy=0.95),
                '{"event": "log", "st',
            ]
        )
    )
    history = launch.read_history(path)
    assert [(log["step"], log["seconds"]) for log in history] == [(1, 10.0), (2, 30.0), (2, 32.0)]
    assert history[1]["loss"] == 2.5
    assert (history[2]["eval_loss"], history[2]["digit_accuracy"]) == (2.4, 0.95)
    assert launch.copying_learned(history) == 2
    assert launch.copying_learned(history[:2]) is None
    assert launch.read_history(tmp_path / "none") == []


# The real trainer


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def trainers(folder):
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in process.info["cmdline"] or [])
    ]


@pytest.mark.real
def test_training_runs_is_joined_and_survives_being_killed(tmp_path, small_data, small_base):
    """One training, through its whole life: killed after its checkpoint, resumed, joined, found done."""
    prepared = prepare(tmp_path / "train", small_data, small_base)
    job = launch.start(prepared)
    joined = launch.start(prepared)  # a re-run cell
    assert joined.pid == job.pid
    checkpoint = prepared.weights / "checkpoint-3" / "trainer_state.json"
    wait_for(lambda: checkpoint.exists() or not job.running, 900, "no checkpoint appeared")
    time.sleep(0.3)
    for process in trainers(prepared.folder):
        process.kill()
    wait_for(lambda: not job.running, 60, "the killed job still counts as running")
    # A data worker that was forked in this very moment ends by itself once it misses its parent (within 5 s).
    wait_for(lambda: not trainers(prepared.folder), 30, "a process of the killed training is left")
    with pytest.raises(ElleError, match="Axolotl failed") as caught:
        launch.follow(prepared, job)
    assert "checkpoint" in caught.value.fix

    seen = []
    trained = launch.follow(prepared, launch.start(prepared), lambda history: seen.append(len(history)))
    events = [json.loads(line) for line in prepared.progress.read_text().splitlines() if line.endswith("}")]
    begins = [event["step"] for event in events if event["event"] == "begin"]
    assert begins[0] == 0
    assert begins[-1] >= 3  # it continued from the checkpoint
    assert trained.steps == 6
    record = json.loads((prepared.folder / launch.DONE).read_text())
    assert record["attempts"] == 2
    assert trained.seconds > trained.history[-1]["seconds"]
    losses = [log["loss"] for log in trained.history if "loss" in log]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert all(0 <= log["digit_accuracy"] <= 1 for log in trained.history if "eval_loss" in log)
    assert seen
    assert seen[-1] == len(trained.history)
    assert not trainers(prepared.folder)

    assert launch.start(prepared) is None  # done: nothing runs again
    assert launch.follow(prepared, None).steps == 6

    from transformers import AutoModelForCausalLM

    weights = AutoModelForCausalLM.from_pretrained(trained.weights).state_dict()
    base = AutoModelForCausalLM.from_pretrained(small_base).state_dict()
    assert any(not weights[name].equal(base[name]) for name in base)


@pytest.mark.real
def test_a_failure_shows_the_logs_own_reason(tmp_path, small_data, small_base):
    path = tmp_path / "bad.yaml"
    content = yaml.safe_load((paths.root() / SMOKE).read_text())
    path.write_text(yaml.safe_dump(content | {"optimizer": "no_such_optimizer"}))
    prepared = prepare(tmp_path / "train", small_data, small_base, recipe=path)
    with pytest.raises(ElleError, match="no_such_optimizer") as caught:
        launch.follow(prepared, launch.start(prepared))
    assert caught.value.where.endswith("log.txt")


@pytest.mark.real
def test_ctrl_c_leaves_no_trainer(tmp_path, small_data, small_base):
    """As a user does it: `elle train`, then Ctrl-C."""
    environment = os.environ | {"ELLE_RUNS": str(tmp_path)}
    command = [sys.executable, "-m", "helpers.cli", "train", SMOKE, "--base", str(small_base)]
    command += ["--data", str(small_data), "--out", str(tmp_path / "train")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=paths.root())
    wait_for(lambda: Job.attach(next((tmp_path / "train").glob("smoke-*"), tmp_path)) is not None, 600, "no job")
    folder = next((tmp_path / "train").glob("smoke-*"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search("interrupted", said)
    wait_for(lambda: not trainers(folder), 10, "a trainer outlived Ctrl-C")
    assert not (folder / launch.DONE).exists()
