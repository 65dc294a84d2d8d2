#!/usr/bin/env bash
# Axolotl: one evaluation per epoch, in a training of one epoch, is no evaluation.
#
# One would guess: `evals_per_epoch: 1` evaluates at the end of each epoch; and `eval_steps` left empty does, too ("Leave
# empty to eval at each epoch", says its description in the schema).
# What happens: evals_per_epoch becomes a share of all steps, 1 / (evals * epochs), which is kept only below 1. It warns
# above 1; at 1 it neither warns nor evaluates. Left empty, nothing is evaluated either. The rows are held out all the
# same. Two evaluations per epoch, or two epochs, are evaluated.
# Versions: axolotl 0.21.0, transformers 5.20.1, torch 2.13.0. Seen 2026-11-28:
#
#   evals_per_epoch empty: evaluated at steps [], no warning
#   evals_per_epoch one: evaluated at steps [], no warning
#   evals_per_epoch two: evaluated at steps [0, 4, 8], no warning
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

for name in empty one two; do printf 'val_set_size: 0.2\nnum_epochs: 1\n' >$name.yaml; done
echo 'evals_per_epoch: 1' >>one.yaml
echo 'evals_per_epoch: 2' >>two.yaml
for name in empty one two; do train $name; done
.venv/bin/python - <<'END'
import json
from pathlib import Path

found = {}
for name in ("empty", "one", "two"):
    (path,) = Path(name).glob("checkpoint-8/trainer_state.json")
    found[name] = [row["step"] for row in json.loads(path.read_text())["log_history"] if "eval_loss" in row]
    warned = "Skipping evaluations" in Path(f"{name}.log").read_text()
    print(f"evals_per_epoch {name}: evaluated at steps {found[name]}, {'a' if warned else 'no'} warning")
    assert not warned, "it changed"
assert found == {"empty": [], "one": [], "two": [0, 4, 8]}, "it changed"
END
