"""Why a training failed: what its log is searched for, what that means, and what to do. docs/troubleshooting.md shows
the same table (`python -m elle.training.diagnosis` prints its rows)."""

import re
from dataclasses import dataclass

#: The plugin's own words, by which its errors are recognised in the log (`training.plugin`).
NOT_FINITE, ROWS_LOST = "is not a finite number", "of the data would not be trained on"


@dataclass(frozen=True)
class Case:
    """pattern: a regular expression of the log; killed: also any end by SIGKILL."""

    name: str
    pattern: str
    means: str
    fix: str
    killed: bool = False

    @property
    def row(self) -> str:
        return f"| {self.means} | {self.fix} |"


#: The first that is found counts: causes stand before what they bring about.
CASES = (
    Case(
        "gpu-memory",
        r"CUDA out of memory|torch\.OutOfMemoryError|CUDA error: out of memory",
        "the GPU's memory is full",
        "halve `micro_batch_size` and double `gradient_accumulation_steps`; `elle plan RECIPE --fix OUT.yaml` looks "
        "for what fits; another program on the GPU shows in `nvidia-smi`",
    ),
    Case(
        "loss",
        NOT_FINITE,
        "the loss or its gradient became infinite or NaN: the training diverged, and stopped before that step",
        "lower `learning_rate` (a third), lengthen the warm-up, keep `max_grad_norm: 1.0`; weights up to the last "
        "checkpoint are unharmed, but going on from it would diverge again",
    ),
    Case(
        "rows-lost",
        ROWS_LOST,
        "too many examples are longer than `sequence_len` or have nothing to train on",
        "raise `sequence_len`, shorten the examples, or accept the loss with `--force`",
    ),
    Case(
        "disk",
        r"No space left on device|Disk quota exceeded|File too large|PytorchStreamWriter failed writing|"
        r"inline_container\.cc:\d+\] \. unexpected pos",
        "the disk is full (or a quota, or a limit on the size of a file)",
        "free some space or enlarge the volume; `save_total_limit: 1` and `save_only_model: true` write less",
    ),
    Case(
        "gated",
        r"GatedRepoError|gated repo|401 Client Error|403 Client Error|Invalid user token",
        "the base model (or data set) on the Hub asks for a licence or a token",
        "accept its licence on its page, and set `HF_TOKEN` in the environment (never in a file of the project)",
    ),
    Case(
        "offline",
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|couldn't connect to 'https://huggingface\.co'|"
        r"We couldn't connect",
        "a model or data set is not on this machine, and the Hub cannot be reached",
        "correct its path or name; unset `HF_HUB_OFFLINE`, or download it first",
    ),
    Case(
        "data-missing",
        r"dataset could not be loaded\. This could be due to a misconfigured dataset path|Unable to find '[^']*'|"
        r"DatasetNotFoundError|DataFilesNotFoundError|No such file or directory: '[^']*\.(jsonl|parquet|arrow)'",
        "the data set has vanished since the training was prepared",
        "make it again (notebook 03_generate_data, or `elle data`), then run this again",
    ),
    Case(
        "data-faulty",
        r"DatasetGenerationError|JSON parse error|Expected object or value|Messages is null|ArrowInvalid|"
        r"ArrowTypeError|CastError",
        "a row of the data set is not what the recipe says",
        "`elle data audit FOLDER` names faulty rows with their lines; `field_messages` must be the rows' own name",
    ),
    Case(
        "chat-template",
        r"chat_template is null|tokenizer\.chat_template is not set|does not have a chat template",
        "the base model's tokenizer has no chat template",
        "name one in the recipe: `chat_template: chatml`",
    ),
    Case(
        "driver-old",
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient",
        "the NVIDIA driver is too old for this build of torch (CUDA 13 needs 580 or newer)",
        "the host sets the driver: rent another pod, filtered for CUDA 13.0 or newer; `make pod` checks it first",
    ),
    Case(
        "driver-new",
        r"no kernel image is available for execution|is not compatible with the current PyTorch installation|"
        r"forward compatibility was attempted on non supported HW|Error 80[34]",
        "this build of torch does not know the GPU, or driver and CUDA libraries do not go together",
        "run on a GPU of the list (`elle plan`); on the same machine restart the pod, so that both are loaded anew",
    ),
    Case(
        "no-gpu",
        r"Found no NVIDIA driver|No CUDA GPUs are available|CUDA driver initialization failed|"
        r"no CUDA-capable device is detected",
        "no GPU can be used from here",
        "see `nvidia-smi` and `CUDA_VISIBLE_DEVICES`; on a laptop train configs/nano.yaml",
    ),
    Case(
        "port",
        r"EADDRINUSE|[Aa]ddress already in use|Port `?\d+`? is already in use|"
        r"server socket has failed to listen",
        "the port at which the processes meet is taken, perhaps by a training that still runs",
        "end the other training, or give another port (`--rendezvous HOST:PORT`)",
    ),
    Case(
        "nccl",
        r"Watchdog caught collective operation timeout|NCCL (error|timeout)|ncclSystemError|ncclRemoteError|"
        r"DistBackendError|RendezvousTimeoutError",
        "the GPUs or nodes lost each other: one of them failed, hangs, or cannot be reached",
        "look for the first error of any process in the log; with several nodes check that each reaches the "
        "rendezvous and runs the same recipe; `NCCL_DEBUG=INFO` says more; `ddp_timeout` gives slow starts more time",
    ),
    Case(
        "killed",
        r"exitcode\s*:\s*-9\b|Signal 9 \(SIGKILL\)|is killed by signal: Killed|died with <Signals\.SIGKILL",
        "a process was killed from outside: most often by the kernel, for want of host memory",
        "`dmesg | tail` names who was killed; rent a host with more memory, offload less, or lower "
        "`dataset_num_proc`; else run this again",
        killed=True,
    ),
)
ENDING = "correct the cause and run this again: it continues from the last whole checkpoint"


def diagnose(log: str, returncode: int | None = None) -> Case | None:
    """The case that a failed training's log (its text) and exit code speak of; None: none that is known.

    The last exception counts for more than what was only warned of before it.
    """
    for text in (log[log.rfind("Traceback (most recent call last)") :], log):
        for case in CASES:
            if re.search(case.pattern, text):
                return case
    return next((case for case in CASES if case.killed and returncode == -9), None)


def diagnosis_rows() -> list[str]:
    """The table's rows for docs/troubleshooting.md: symptom and fix."""
    return [case.row for case in CASES]


if __name__ == "__main__":
    print("\n".join(diagnosis_rows()))
