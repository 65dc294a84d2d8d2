#!/usr/bin/env bash
# Axolotl, sample packing: a validation set smaller than one batch is evaluated without a loss, and nothing says so.
#
# One would guess: two held-out rows are evaluated, or refused ("eval dataset split is too small for sample_packing").
# What happens: the packing sampler drops an incomplete batch, here the only one, so the evaluation is of nothing: its log
# has a running time and samples per second, and no eval_loss. The check that would refuse it asks whether the steps are
# 0, but they are counted as max(1, ...). With batches of one row the same two rows have a loss.
# Versions: axolotl 0.21.0, transformers 5.20.1, torch 2.13.0. Seen 2026-11-28:
#
#   eval_batch_size 1: 2 evaluations, 2 of them with a loss; speed stated: True
#   eval_batch_size 2: 2 evaluations, 0 of them with a loss; speed stated: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset PYTHONPATH
export CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 HF_HOME="$work/hf" AXOLOTL_DO_NOT_TRACK=1
uv=uv
command -v uv >/dev/null || uv="python3 -m uv"
$uv venv -q --python 3.12 .venv
$uv pip install -q --python .venv axolotl==0.21.0 transformers==5.20.1 torch==2.13.0 peft==0.21.2 \
    accelerate==1.15.0 datasets==5.0.1 trl==1.14.1 bitsandbytes==0.50.2 deepspeed==0.19.8 numpy==2.3.5
cat >make.py <<'END'
import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
words = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
words.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>", pad_token="<|pad|>").save_pretrained("base")
sizes = {"vocab_size": 264, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2)).save_pretrained("base")
with open("rows.jsonl", "w") as file:  # ten rows of 31 tokens
    file.writelines(json.dumps({"text": chr(97 + i) * 30}) + "\n" for i in range(10))
END
cat >common.yaml <<'END'
base_model: base
datasets: [{path: rows.jsonl, type: completion}]
dataset_num_proc: 1
sequence_len: 64
attn_implementation: sdpa
micro_batch_size: 1
learning_rate: 0.001
bf16: false
logging_steps: 1
END
.venv/bin/python make.py >log 2>&1 || { tail -n 20 log; exit 1; }
train() { # NAME: train the recipe common.yaml + NAME.yaml as Axolotl's own command does
    cat common.yaml >>"$1.yaml"
    printf 'output_dir: %s\ndataset_prepared_path: %s-prepared\n' "$1" "$1" >>"$1.yaml"
    .venv/bin/python -m axolotl.cli.train "$1.yaml" >"$1.log" 2>&1 || { tail -n 20 "$1.log"; exit 1; }
}

for rows in 1 2; do
    cat >batch$rows.yaml <<END
sample_packing: true
val_set_size: 0.2
num_epochs: 1
eval_strategy: epoch
eval_batch_size: $rows
END
    train batch$rows
done
.venv/bin/python - <<'END'
import json
from pathlib import Path

for rows in (1, 2):
    (path,) = Path(f"batch{rows}").glob("checkpoint-*/trainer_state.json")
    logs = [row for row in json.loads(path.read_text())["log_history"] if "eval_runtime" in row]
    losses = ["eval_loss" in row for row in logs]
    speed = all(row["eval_samples_per_second"] > 0 for row in logs)
    print(f"eval_batch_size {rows}: {len(logs)} evaluations, {sum(losses)} of them with a loss; speed stated: {speed}")
    assert speed and losses == [rows == 1] * 2, "it changed"
END
