"""vLLM beside transformers, the same model, briefings and machine: `python benchmarks/serve.py [RUN_OR_FOLDER]`.

1. transformers' generate, one briefing after the other, and in batches of 16; 2. vLLM asked by the project's client at
16 requests at once, free and held to the schema; 3. vLLM's own benchmark (`vllm bench serve`) at several numbers of
requests at once, free and held to the schema: throughput, time to the first token, time from one to the next. All
greedy, fp32 on a CPU, transformers with as many threads as serve it best; tokens are those of the answers. The first
two are measured `--rounds` times in turn, and medians are compared: other work on the machine disturbs all alike.

Without an argument the newest run that has trained is served. Exit code 1 where vLLM at 16 is not three times as fast
as transformers one by one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from elle.base import machine, paths, storage
from elle.briefings import dataset
from elle.serving import deployments, server
from elle.serving.answers import schema_of
from elle.serving.client import ask
from helpers import plots

MAX_TOKENS, AT_ONCE, RATIO = 320, 16, 3.0
#: vLLM's benchmark, several times in one process, without its `vllm` command, which fails in the CPU build.
BENCH = """
import json, sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
for arguments in json.loads(sys.argv[1]):
    main(parser.parse_args(arguments))
"""


def newest() -> str:
    """The id of the newest run that has trained."""
    trained = sorted(paths.runs().glob("*/manifests/05_train.json"), key=lambda path: path.stat().st_mtime)
    if not trained:
        sys.exit("error: no run has trained a model yet: elle run nano")
    return trained[-1].parent.parent.name


def rows_of(model: str, count: int, folder: Path) -> list[dict]:
    """Unseen briefings: a run's own, or new ones of the basic set."""
    data = paths.runs() / model / "data"
    if not data.is_dir():
        dataset.build("basic", 20 * count, 11, folder)
        data = folder
    return dataset.read_split(data, "test", limit=count)


class Transformers:
    """transformers' generate: briefings in batches of `size`, shorter prompts padded on the left."""

    def __init__(self, weights: Path, rows: list[dict]):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(weights, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
        self.prompts = [self.text(row) for row in rows]
        tried = {}
        for threads in {max(1, torch.get_num_threads() - 1), torch.get_num_threads()}:  # on a busy machine fewer
            torch.set_num_threads(threads)
            tried[threads] = self.rate(1, 2)
        torch.set_num_threads(max(tried, key=lambda threads: tried[threads]))

    def text(self, row: dict) -> str:
        return self.tokenizer.apply_chat_template(dataset.messages(row), tokenize=False, add_generation_prompt=True)

    def rate(self, size: int, count: int) -> float:
        """Tokens a second of the answers to the first `count` prompts."""
        import torch

        made, ends = 0, self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        began = time.perf_counter()
        for start in range(0, count, size):
            batch = self.tokenizer(self.prompts[start : start + size], return_tensors="pt", padding=True)
            with torch.no_grad():
                out = self.model.generate(
                    **batch, max_new_tokens=MAX_TOKENS, do_sample=False, repetition_penalty=1.0,
                    pad_token_id=self.tokenizer.pad_token_id,
                )  # fmt: skip
            for row in out[:, batch["input_ids"].shape[1] :].tolist():
                made += next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
        return made / (time.perf_counter() - began)


def bench(
    found: server.Server, weights: Path, prompts: Path, levels: list[int], count: int, schema: dict
) -> list[dict]:
    """vLLM's own benchmark at each number of requests at once, free and held to the schema, as `plots.load` takes it.

    prompts: ShareGPT conversations as JSON, the prompt with its template (of the ways to give one's own data the one
    that needs no pandas, which the server has not).
    """
    folder = prompts.parent
    asked = [(level, held) for level in levels for held in (False, True)]
    all_arguments = []
    for level, held in asked:
        extra = {"repetition_penalty": 1.0} | ({"structured_outputs": {"json": schema}} if held else {})
        arguments = ["--backend", "openai", "--endpoint", "/v1/completions", "--disable-tqdm", "--save-result"]
        arguments += ["--base-url", found.base_url.removesuffix("/v1"), "--model", found.name]
        arguments += ["--tokenizer", str(weights), "--dataset-name", "sharegpt", "--dataset-path", str(prompts)]
        arguments += ["--sharegpt-output-len", str(MAX_TOKENS), "--temperature", "0", "--extra-body", json.dumps(extra)]
        arguments += ["--num-prompts", str(min(count, 8 * level)), "--max-concurrency", str(level)]
        arguments += ["--percentile-metrics", "ttft,tpot,e2el", "--metric-percentiles", "50,95"]
        arguments += ["--result-dir", str(folder), "--result-filename", f"{level}-{held}.json"]
        all_arguments.append(arguments)
    python = sys.executable if machine.has_gpu() else str(paths.server_python())
    key = {"OPENAI_API_KEY": os.environ.get("ELLE_API_KEY", "")}
    command = [python, "-c", BENCH, json.dumps(all_arguments)]
    variables = os.environ | {"HF_HUB_OFFLINE": "1"} | key
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: vLLM's benchmark failed\n{done.stderr[-2000:]}")
    points = []
    for level, held in asked:
        result = storage.read_json(folder / f"{level}-{held}.json")
        points.append(
            {
                "concurrency": level,
                "constrained": held,
                "tokens_per_second": result["output_throughput"],
                "p50": result["p50_e2el_ms"] / 1000,
                "p95": result["p95_e2el_ms"] / 1000,
                "first_token": result["p50_ttft_ms"] / 1000,
                "inter_token": result["p50_tpot_ms"] / 1000,
            }
        )
    return points


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", metavar="RUN_OR_FOLDER")
    parser.add_argument("--count", type=int, default=96, help="briefings asked for at each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrencies", default="1,4,16,32")
    parser.add_argument("--picture", type=Path, help="where to draw vLLM's own benchmark")
    arguments = parser.parse_args()
    model = arguments.model or newest()
    weights, _ = deployments.resolve(model)
    levels = [int(text) for text in arguments.concurrencies.split(",")]
    with tempfile.TemporaryDirectory(prefix="elle-") as folder:
        rows = rows_of(model, arguments.count, Path(folder) / "data")
        schema, count = schema_of(rows), len(rows)
        other = Transformers(weights, rows)
        prompts = Path(folder) / "prompts.json"
        storage.write_json(prompts, [{"conversations": [{"value": text}, {"value": ""}]} for text in other.prompts])
        questions = [(row["id"], dataset.messages(row)) for row in rows]
        rates: dict[str, list[float]] = {}
        with server.start_server(weights, Path(folder) / "server") as found:

            def served(held: dict | None, requests: list) -> float:
                options = {"max_tokens": MAX_TOKENS, "schema": held, "concurrency": AT_ONCE}
                return ask(found.base_url, found.name, requests, **options).tokens_per_second

            for held in (None, schema):  # a grammar is compiled once
                served(held, questions[:2])
            for _ in range(arguments.rounds):
                for name, measured in (
                    ("transformers, one by one", lambda: other.rate(1, max(1, count // 8))),
                    (f"transformers, batches of {AT_ONCE}", lambda: other.rate(AT_ONCE, count)),
                    (f"vLLM, {AT_ONCE} at once", lambda: served(None, questions)),
                    (f"vLLM, {AT_ONCE} at once, json_schema", lambda: served(schema, questions)),
                ):
                    rates.setdefault(name, []).append(measured())
            points = bench(found, weights, prompts, levels, count, schema)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    one, _, vllm, held = medians.values()
    print(f"{count} briefings, {paths.shown(weights)}, medians of {arguments.rounds} rounds\n")
    print("| tokens a second | | of transformers one by one |\n|---|---|---|")
    for name, rate in medians.items():
        print(f"| {name} | {rate:,.0f} | {rate / one:.1f} |")
    print(f"\nThe schema costs {1 - held / vllm:.0%} of the tokens a second.\n\n`vllm bench serve`:\n")
    head = ("requests at once", "held", "tokens/s", "first token p50 (ms)", "between p50 (ms)", "p50 (s)", "p95 (s)")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for point in points:
        kind = "json_schema" if point["constrained"] else "free"
        tokens = f"{1000 * point['first_token']:.0f} | {1000 * point['inter_token']:.1f}"
        times = f"{point['p50']:.2f} | {point['p95']:.2f}"
        print(f"| {point['concurrency']} | {kind} | {point['tokens_per_second']:,.0f} | {tokens} | {times} |")
    if arguments.picture:
        plots.serving.load_test(points).savefig(arguments.picture, dpi=110)
    return int(vllm < RATIO * one)


if __name__ == "__main__":
    sys.exit(main())
