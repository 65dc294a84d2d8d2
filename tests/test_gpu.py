"""benchmarks/gpu.py: bases without disk, what has to travel, and a row measured by the real trainer (on the CPU)."""

import json
import subprocess
import sys
import tarfile

import gpu
import pytest

from elle.base import paths
from elle.plan import models

PROGRAM = paths.root() / "benchmarks" / "gpu.py"
TINY = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1500,
    "tie_word_embeddings": True,
}
#: What a processor needs of a recipe that is for a GPU (`launch` sets it in an `elle train`).
ON_CPU = "bf16=false,fp16=false,tf32=false,sample_packing=false,eval_sample_packing=null,plugins=null"
KERNELS = "lora_mlp_kernel=false,lora_qkv_kernel=false,lora_o_kernel=false"


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY))
    return folder


def run(*arguments) -> subprocess.CompletedProcess:
    command = ["env", "CUDA_VISIBLE_DEVICES=", sys.executable, PROGRAM, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=paths.root(), check=False)


def test_what_travels_is_without_tests_and_other_cuda(tmp_path):
    gpu.pack(tmp_path / "x.tar.xz", ["hjson", "annotated-types"])
    with tarfile.open(tmp_path / "x.tar.xz") as archive:
        names = archive.getnames()
    assert any(name == "hjson/__init__.py" for name in names)
    assert any(name.startswith("annotated_types-") for name in names)  # versions are asked for
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyc")]


def test_a_base_that_is_not_covered_is_named():
    done = run("configs/nano.yaml,base_model=some/model", "--data", paths.root() / "none")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")


@pytest.mark.real
def test_a_base_of_zeros_takes_no_disk_and_loads_whole(small_data, tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    tokenizer = gpu.make_tokenizer(small_data / "train.jsonl", tmp_path / "tokenizer")
    gpu.make_base(models.find(str(tiny)), tmp_path / "base", tokenizer)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert sum(weights.numel() for weights in found.parameters()) == models.find(str(tiny)).parameters
    (tmp_path / "large").mkdir()
    gpu.make_base(models.find("Qwen/Qwen2.5-14B-Instruct"), tmp_path / "large", tokenizer)
    files = [path.stat() for path in (tmp_path / "large").glob("*.safetensors")]
    assert sum(file.st_size for file in files) == pytest.approx(2 * 14_770_033_664, rel=1e-5)
    assert sum(512 * file.st_blocks for file in files) < 1e7


@pytest.mark.real
@pytest.mark.timeout(600)
def test_a_recipe_becomes_a_row(small_data, tiny, tmp_path):
    out = tmp_path / "rows.jsonl"
    named = f"configs/config_3b_qlora.yaml,base_model={tiny},{ON_CPU},{KERNELS},sequence_len=512,micro_batch_size=2"
    done = run(named, "--data", small_data, "--steps", 3, "--micro", "1", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(row["step_s"]) == 3
    assert row["row_tokens_per_s"] == pytest.approx(2 * 512 / row["median_step_s"], rel=0.01)
    assert (row["adapter"], row["rank"], row["lora_kernels"]) == ("qlora", 64, False)
    assert row["parameters"]["float32*"] == models.find(str(tiny)).lora(64)
    assert [one["micro"] for one in row["micro_steps"]] == [1]
    assert 0 < row["losses"][0] < 20  # noise, not zeros: ln 1500 is 7.3
