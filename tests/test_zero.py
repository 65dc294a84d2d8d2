"""The shipped DeepSpeed files on two CPU ranks: benchmarks/zero.py, run as a user runs it, and its own judgement."""

import copy
import json
import subprocess
import sys

import pytest
import zero

from elle.base import paths, storage, yaml_files
from elle.plan import axolotl

pytestmark = pytest.mark.timeout(2400)  # 15 trainings: two minutes of two idle cores, twelve of busy ones

PROGRAM = paths.root() / "benchmarks" / "zero.py"
LOADING = paths.root() / "tests" / "zero_loading.py"
FAULTS = paths.root() / "tests" / "fixtures" / "zero_faults.yaml"
FILES = sorted(f"deepspeed/{path.name}" for path in (paths.root() / "deepspeed").glob("*.json"))


def run(*arguments) -> subprocess.CompletedProcess:
    # The processors alone, also where there are GPUs: this is about two ranks, whatever the machine.
    command = ["env", "CUDA_VISIBLE_DEVICES=", sys.executable, PROGRAM, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=paths.root(), check=False)


def one(result: dict, name: str) -> dict:
    return next(found for found in result["files"] if found["file"] == f"deepspeed/{name}.json")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """All shipped files, as they stand: each trained in fp32 and bf16, saved, and resumed."""
    file = tmp_path_factory.mktemp("zero") / "result.json"
    done = run("--json", file)
    assert file.exists(), done.stderr
    assert done.returncode == (1 if storage.read_json(file)["faults"] else 0)
    return storage.read_json(file)


@pytest.mark.real
def test_every_shipped_file_trains_saves_and_resumes_on_two_ranks_as_one_process_does_without_it(result):
    assert [found["file"] for found in result["files"]] == FILES
    assert {found["stage"] for found in result["files"]} == {2, 3}
    assert sum(found["offload"] for found in result["files"]) == 2
    assert (result["ranks"], result["faults"]) == (2, [])
    alone = result["alone"]["fp32"]
    assert len(alone) == 10
    assert alone["1"] - alone["10"] > 1  # there was something to agree on
    for found in result["files"]:
        if not found["low_precision_reduction"]:
            assert found["losses"]["fp32"] == pytest.approx(alone, abs=1e-4)
        assert found["losses"]["bf16"] == pytest.approx(result["alone"]["bf16"], abs=0.05)
        # DeepSpeed's CPU Adam does not take up the last bits of its betas' powers; bf16 makes more of that.
        tolerance = 0.005 if found["offload"] else 1e-6
        assert found["losses"]["resumed"] == pytest.approx(found["losses"]["bf16"], abs=tolerance)
        assert found["apart"]["saved"] <= 0.04  # an untrained model's logits are more than 1 away


@pytest.mark.real
def test_each_rank_holds_its_share_and_no_more(result):
    n = result["parameters"]
    for name, weights in (("zero2", 2 * n), ("zero2_8gpu", 2 * n), ("zero3", n), ("zero3_offload", n)):
        for held in one(result, name)["held"]:
            assert held["weights"] == pytest.approx(weights, rel=0.01)
            assert held["master"] == pytest.approx(4 * n / 2, rel=0.01)
            assert held["optimizer"] == pytest.approx(8 * n / 2, rel=0.01)
    for held in one(result, "zero3")["held"]:
        assert held["gradients"] == pytest.approx(n, rel=0.01)
    # ZeRO-2 keeps the whole of the one matrix that lies on the border of the two shares, on both ranks.
    both = sum(held["gradients"] for held in one(result, "zero2")["held"])
    assert 2 * n <= both <= 2 * n * 1.01 + one(result, "zero2")["largest"]
    # And nothing else of such a size exists: after a step all tensors of the process are those counted, and a batch.
    for name in ("zero2", "zero2_8gpu", "zero3"):
        for held in one(result, name)["held"]:
            assert held["all"] == pytest.approx(held["named"], rel=0.03)


@pytest.mark.real
def test_8_bit_adam_is_partitioned_too(tmp_path):
    done = run("deepspeed/zero3.json", "--optimizer", "adamw_bnb_8bit", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = storage.read_json(tmp_path / "r.json")
    for held in found["files"][0]["held"]:
        assert held["optimizer"] == pytest.approx(2 * (1 + 4 / 256) * found["parameters"] / 2, rel=0.02)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What Axolotl's own loader and DeepSpeed make of a model in bf16 at stage 3, by case (tests/zero_loading.py)."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("loaded")
    torch.manual_seed(42)
    sizes = {"vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 384}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).to(torch.bfloat16).save_pretrained(folder / "base")
    content = axolotl.read_deepspeed("deepspeed/zero3.json")
    kept = dict.fromkeys(("stage3_max_live_parameters", "stage3_max_reuse_distance"), 0)
    content["zero_optimization"] |= kept | {"stage3_param_persistence_threshold": 0}  # all is divided at all times
    cases = {}
    for name, enabled, kwargs in (
        ("auto", "auto", None),
        ("true", True, None),
        ("reentrant", True, {"use_reentrant": True}),
        ("other", True, {"use_reentrant": False}),
    ):
        file = storage.write_json(folder / f"{name}.json", content | {"bf16": {"enabled": enabled}})
        cases[name] = {"file": str(file), "kwargs": kwargs}
    job = storage.write_json(folder / "job.json", {"base": str(folder / "base"), "out": str(folder), "cases": cases})
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = ["env", "CUDA_VISIBLE_DEVICES=", "OMP_NUM_THREADS=1", sys.executable, *ranks, LOADING, job]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=paths.root(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return storage.read_json(folder / "result.json")


@pytest.mark.real
def test_under_axolotl_a_zero3_file_that_says_auto_is_fp32_and_one_that_says_true_bf16(loaded):
    for name, dtype in (("auto", "torch.float32"), ("true", "torch.bfloat16")):
        assert (loaded[name]["loaded"], loaded[name]["trained"]) == ([dtype], [dtype])
    for path in (paths.root() / "deepspeed").glob("*.json"):
        content = storage.read_json(path)
        assert content["bf16"]["enabled"] is True or content["zero_optimization"]["stage"] < 3


@pytest.mark.real
def test_both_kinds_of_recomputation_train_under_zero3(loaded):
    assert loaded["reentrant"]["recomputed"] == loaded["other"]["recomputed"] == 6  # two layers, three steps
    assert loaded["true"]["recomputed"] == 0
    assert len(loaded["true"]["losses"]) == 3
    assert loaded["reentrant"]["losses"] == loaded["other"]["losses"] == loaded["true"]["losses"]


# Its judgement, on figures as they come out where all is well


@pytest.fixture
def found() -> dict:
    """What is found of one file, on two ranks."""
    losses = {str(step): 6.0 - step / 10 for step in range(1, zero.STEPS + 1)}
    planned = {"weights": 1e6, "gradients": 1e6, "master": 2e6, "optimizer": 4e6, "step": 2e6}
    held = {term: int(size) for term, size in planned.items()} | {"named": 8, "all": 8, "steps": zero.STEPS}
    held["dtype"] = ["torch.bfloat16"]
    return {
        "file": "x.json", "stage": 3, "offload": False, "low_precision_reduction": False, "largest": 500_000,
        "losses": {kind: dict(losses) for kind in ("fp32", "bf16", "resumed")},
        "apart": {"fp32": 0.0, "bf16": 0.01, "resumed": 0.0, "saved": 0.0}, "planned": planned,
        "held": [dict(held), dict(held)], "resumed_steps": zero.STEPS - zero.SAVED,
    }  # fmt: skip


def faults(found: dict, optimizer: str = "x") -> str:
    return "\n".join(zero.faults({"ranks": 2, "optimizer": optimizer, "files": [found]}))


def changed(found: dict, changes: dict) -> dict:
    """`found` with other values: by key, or by "key.key" (of what the ranks hold: "held.rank.key")."""
    found = copy.deepcopy(found)
    for path, value in changes.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
        place = found
        for key in way:
            place = place[key]
        place[last] = value
    return found


@pytest.mark.parametrize(("changes", "message", "allowed"), yaml_files.read_yaml(FAULTS)["faults"])
def test_what_does_not_agree_is_said_unless_a_setting_explains_it(found, changes, message, allowed):
    assert not faults(found)
    found = changed(found, changes)
    assert message in faults(found)
    assert not allowed or not faults(found | allowed)


def test_rounded_and_offloaded_states_are_held_against_their_own_terms(found):
    found["planned"] |= dict.fromkeys(("gradients", "master", "optimizer", "step"), 0) | {"offload": 9e6}
    assert not faults(found)
    found["apart"]["fp32"] = 0.001
    assert faults(found)
    assert not faults(found, optimizer="adamw_bnb_8bit")


def test_a_file_that_cannot_work_is_refused_before_anything_starts(tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"zero_optimization": {"stage": 7}}))
    done = run(bad)
    assert (done.returncode, done.stdout) == (1, "")
    assert "7 is not a ZeRO stage" in done.stderr
    assert "fix:" in done.stderr
    assert "file not found" in run(tmp_path / "none.json").stderr
    assert "cannot share a batch" in run("--ranks", "3").stderr
