#!/usr/bin/env bash
# papermill: the notebook that it keeps of a killed kernel says that every cell completed.
#
# One would guess: a kernel that is killed (most often for want of memory) fails the run as an error in a cell does: a
# PapermillExecutionError, and in the kept notebook a cell with status "failed" and an error as its output.
# What happens: nbclient's DeadKernelError comes through, which is no PapermillExecutionError. In the kept notebook the cell
# that was running has status "completed", exception false and no output, the notebook's own exception is null, and only
# the cells behind it, still "pending", show that something is missing. Where the last cell was killed nothing does: who
# judges a batch by its notebooks takes it for a success.
# Versions: papermill 2.7.0, nbclient 0.11.0, ipykernel 7.4.0. Seen 2026-11-28:
#
#   error in a cell: PapermillExecutionError; statuses ['completed', 'failed']; exception True; outputs ['error']
#   killed kernel: DeadKernelError; statuses ['completed', 'completed']; exception None; outputs []
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset PYTHONPATH
export JUPYTER_DATA_DIR="$work/data" JUPYTER_RUNTIME_DIR="$work/runtime" IPYTHONDIR="$work/ipython"
uv=uv
command -v uv >/dev/null || uv="python3 -m uv"
$uv venv -q --python 3.12 .venv
$uv pip install -q --python .venv papermill==2.7.0 nbclient==0.11.0 ipykernel==7.4.0
cat >check.py <<'PY'
import nbformat
import papermill


def seen(name, code):
    cells = [nbformat.v4.new_code_cell("print('before')"), nbformat.v4.new_code_cell(code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), "in.ipynb")
    raised = "nothing"
    try:
        papermill.execute_notebook("in.ipynb", "out.ipynb", progress_bar=False)
    except Exception as error:
        raised = type(error).__name__
    book = nbformat.read("out.ipynb", as_version=4)
    code_cells = [cell for cell in book.cells if cell.source in ("print('before')", code)]
    statuses = [cell.metadata["papermill"]["status"] for cell in code_cells]
    outputs = [output.output_type for output in code_cells[-1].outputs]
    said = f"{raised}; statuses {statuses}; exception {book.metadata['papermill']['exception']}; outputs {outputs}"
    print(f"{name}: {said}")
    return said


error = seen("error in a cell", "1 / 0")
killed = seen("killed kernel", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
assert error == "PapermillExecutionError; statuses ['completed', 'failed']; exception True; outputs ['error']"
assert killed == "DeadKernelError; statuses ['completed', 'completed']; exception None; outputs []"
PY
.venv/bin/python check.py 2>/dev/null
