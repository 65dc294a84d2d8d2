#!/usr/bin/env bash
# Axolotl, sample packing: five epochs are not five passes over the data.
#
# One would guess: `num_epochs: 5` trains five passes.
# What happens: Axolotl rounds an epoch's packed batches down to whole accumulations, multiplies by the epochs, and gives
# that to transformers as max_steps. There, what an epoch leaves over is a step of its own. So the steps are used up
# early: 5 batches by 2 are 2 steps for the one, 3 for the other, and 5 epochs end after 3.4, without a word. The
# learning rate's schedule is as short.
# Versions: axolotl 0.21.0, transformers 5.20.1, torch 2.13.0. Seen 2026-11-28:
#
#   asked for 5 epochs of 5 batches; trained 10 steps, 3.4 epochs
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

cat >run.yaml <<'END'
sample_packing: true
gradient_accumulation_steps: 2
num_epochs: 5
END
train run
.venv/bin/python - <<'END'
import json
from pathlib import Path

states = [json.loads(path.read_text()) for path in Path("run").glob("checkpoint-*/trainer_state.json")]
last = max(states, key=lambda state: state["global_step"])
print(f"asked for 5 epochs of 5 batches; trained {last['global_step']} steps, {last['epoch']} epochs")
assert (last["global_step"], last["epoch"]) == (10, 3.4), "it changed"
END
