"""`elle run` and plain papermill: what is refused before anything runs, failures that say where, and the whole smoke
profile with the real trainer and the real server."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
import report_parts
from lab import Lab

from cic import claims
from elle.base import paths, yaml_files
from elle.base.errors import ElleError
from elle.training.history import read_events
from helpers.runs import manifest, parameters, pipeline, profile, publish

REFUSALS = yaml_files.read_yaml(paths.root() / "tests" / "fixtures" / "refusals.yaml")


def elle(*arguments, **variables):
    """The command as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "helpers.cli", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | variables, cwd=paths.root(), timeout=1150, check=False,
    )  # fmt: skip


# Refused before anything runs


@pytest.mark.parametrize(("arguments", "what", "fix"), REFUSALS["runs"])
def test_a_run_that_cannot_be_meant_is_refused(tmp_path, arguments, what, fix):
    done = elle("run", *arguments, ELLE_RUNS=str(tmp_path / "runs"))
    assert done.returncode == (2 if what == "No such option" else 1)
    assert all(part in done.stderr for part in (what, fix))
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("content", "what"), REFUSALS["profiles"])
def test_a_faulty_profile_is_named(tmp_path, monkeypatch, content, what):
    monkeypatch.setattr(paths, "profiles", lambda: tmp_path)
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ElleError, match=what) as caught:
        profile.load_profile("bad")
    assert caught.value.where.endswith("bad.yaml")


def test_two_runs_do_not_share_a_folder(tmp_path):
    with pipeline._alone(tmp_path), pytest.raises(ElleError, match="another `elle run`"), pipeline._alone(tmp_path):
        pass


# Failures


@pytest.fixture
def one_notebook(tmp_path, monkeypatch):
    """A project with one notebook, whose last cells are a test's; its profile is `one`."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "one.yaml").write_text('summary: "one"\nnotebooks: [00_one]\n')
    monkeypatch.setattr(paths, "notebooks", lambda: notebooks)
    monkeypatch.setattr(paths, "profiles", lambda: tmp_path / "profiles")

    def write(*code):
        parameters = nbformat.v4.new_code_cell('run_id: str = "lab"  # run', metadata={"tags": ["parameters"]})
        cells = [parameters, *map(nbformat.v4.new_code_cell, code)]
        book = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
        nbformat.write(book, notebooks / "00_one.ipynb")

    return write


def test_a_failing_notebook_is_named_with_its_cell_and_how_to_go_on(one_notebook):
    failing = "raise ElleError('the well is dry', where='the garden', fix='dig deeper')"
    one_notebook("from elle.base.errors import ElleError", failing)
    with pytest.raises(ElleError, match="notebook 00_one failed in cell") as caught:
        pipeline.run_profile("one", run_id="r", say=lambda _: None)
    for part in ("the well is dry", "the garden", "dig deeper", "elle run one --resume --run-id r"):
        assert part in str(caught.value)
    executed = paths.runs() / "r" / "notebooks"
    assert "the well is dry" in (executed / "00_one.partial.html").read_text()
    one_notebook("pass")
    with pytest.raises(ElleError, match="wrote no manifest"):
        pipeline.run_profile("one", run_id="r", say=lambda _: None)
    # Put right, it leaves a notebook and its page, and nothing half-finished.
    one_notebook(
        "from elle.base import paths, storage",
        'manifest = dict.fromkeys(("metrics", "parameters", "versions", "inputs"), {})',
        'manifest |= {"step": "00_one", "device": "", "started": "", "seconds": 1}',
        'storage.write_json(paths.runs() / run_id / "manifests" / "00_one.json", manifest)',
    )
    pipeline.run_profile("one", run_id="r", say=lambda _: None)
    assert {path.name for path in executed.iterdir()} == {"00_one.ipynb", "00_one.html"}


#: What a page loads, and from elsewhere (a link that a person clicks is no such thing).
LOADED = re.compile(
    r"""<(?:script|link|iframe)[^>]*?(?:src|href)=|(?:src|srcset)=["']?https?:|url\(["']?https?:|import\("""
)


def test_a_notebooks_page_loads_nothing_from_elsewhere(tmp_path):
    book = nbformat.read(paths.notebooks() / "03_generate_data.ipynb", as_version=4)
    book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    book.cells.append(nbformat.v4.new_markdown_cell("`$HOME` or $x_1$\n\n```mermaid\ngraph LR\n```"))
    nbformat.write(book, tmp_path / "page.ipynb")
    page = pipeline._write_page(tmp_path / "page.ipynb").read_text()
    assert not LOADED.search(page)
    assert (page.count("<math"), page.count("$$"), page.count("<code>$HOME</code>")) == (2, 0, 1)


def test_a_notebooks_progress_reaches_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with pipeline._watched(tmp_path / "status"):
        Path(os.environ[manifest.STATUS]).write_text("step 3 of 6")
        time.sleep(1.5)
    assert "step 3 of 6" in capsys.readouterr().err
    assert not (tmp_path / "status").exists()
    assert manifest.STATUS not in os.environ


def test_a_run_belongs_to_the_profile_that_took_it_furthest(tmp_path, monkeypatch):
    """A run continued with a second profile published the first one's notebooks only."""
    monkeypatch.setattr(paths, "profiles", lambda: tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f'summary: "{name}"\nnotebooks: [00_start_here]\n')
        pipeline.run_profile(name, run_id="r", resume=name == "two", say=lambda _: None)
        assert json.loads((paths.runs() / "r" / "run.json").read_text())["profile"] == name
    assert pipeline.latest("two") == "r"


# The command


@pytest.mark.parametrize(("line", "what"), REFUSALS["outputs"])
def test_faulty_outputs_are_named(tmp_path, small_data, line, what):
    (tmp_path / "o.jsonl").write_text(line)
    done = elle("evaluate", "--data", small_data / "train.jsonl", "--outputs", tmp_path / "o.jsonl")
    assert (done.returncode, what in done.stderr, "Traceback" in done.stderr) == (1, True, False)


# The whole path, for real


def orphans(folder: Path) -> list[psutil.Process]:
    """Processes that know of a run's folder: trainers, servers, kernels' jobs."""
    running = psutil.process_iter(["cmdline"])
    return [process for process in running if str(folder) in "\n".join(process.info["cmdline"] or [])]


def until(happened: Callable[[], object], seconds: float, process: subprocess.Popen | None = None) -> None:
    """Wait for something, for which `process` must go on."""
    end = time.monotonic() + seconds
    while not happened():
        assert process is None or process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The smoke profile, run once by the command: every notebook, Axolotl and vLLM."""
    runs = tmp_path_factory.mktemp("runs")
    done = elle("run", "smoke", "--run-id", "whole", ELLE_RUNS=str(runs))
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return runs / "whole", done.stdout


@pytest.mark.real
def test_the_whole_path_runs(finished):
    folder, printed = finished
    steps = profile.load_profile("smoke").notebooks
    assert [path.stem for path in sorted((folder / "manifests").glob("*.json"))] == sorted(steps)
    for number, step in enumerate(steps, 1):
        assert f"[{number}/{len(steps)}] {step}: " in printed
        assert not LOADED.search((folder / "notebooks" / f"{step}.html").read_text())
        book = nbformat.read(folder / "notebooks" / f"{step}.ipynb", as_version=4)
        for cell in book.cells:
            assert not [o for o in cell.get("outputs", []) if o["output_type"] == "error"]
    assert not orphans(folder)
    card = json.loads((folder / "report.json").read_text())
    assert (card["json_strict"]["n"], card["seed"], card["not_run"]) == (8, 7, [])
    assert card["constrained"]["json_strict"]["value"] is not None
    assert card["total_seconds"] > card["train_seconds"] > 0
    assert {row["claim"] for row in card["claims"]} == {claim.name for claim in claims.CLAIMS}
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 5
    assert not re.search(rf"https?://|{re.escape(str(folder))}", page)


@pytest.mark.real
def test_a_run_is_published_clean_and_stamped(finished, tmp_path, monkeypatch):
    folder, _ = finished
    own = tmp_path / "notebooks"
    shutil.copytree(paths.notebooks(), own)
    monkeypatch.setattr(paths, "notebooks", lambda: own)
    monkeypatch.setattr(paths, "published", lambda: tmp_path / "course.json")
    monkeypatch.setenv("ELLE_RUNS", str(folder.parent))
    before = {path: parameters.stamp(path) for path in own.glob("*.ipynb")}
    executed = nbformat.read(folder / "notebooks" / "05_train.ipynb", as_version=4)
    noisy = next(cell for cell in executed.cells if cell.get("outputs"))
    noisy.outputs.insert(0, nbformat.v4.new_output("stream", name="stderr", text="a library's warning"))
    nbformat.write(executed, folder / "notebooks" / "05_train.ipynb")
    assert publish.publish("whole") == profile.load_profile("smoke").notebooks
    for path, stamp in before.items():
        book = json.loads(path.read_text())
        assert book["metadata"]["elle"] == {"profile": "smoke", "stamp": stamp}
        assert "papermill" not in json.dumps([cell["metadata"] for cell in book["cells"]] + [book["metadata"]])
        assert str(folder) not in path.read_text()
        assert any(cell.get("outputs") for cell in book["cells"])
        assert "a library's warning" not in path.read_text()
    with pytest.raises(ElleError, match="unknown run 'whale'") as caught:
        publish.publish("whale")
    figures = json.loads((tmp_path / "course.json").read_text())
    assert figures["json_strict"] == json.loads((folder / "report.json").read_text())["json_strict"]
    parts = report_parts.parts(figures)
    assert f"| {figures['serving']['points'][0]['tokens_per_second']:,.0f} |" in parts["load"]
    assert "whole" in caught.value.fix


@pytest.mark.real
def test_the_form_of_08_answers_in_a_browser(finished, tmp_path):
    """A slider moved, the button pressed: the briefing of those figures, and the evaluator's verdict."""
    shutil.copytree(finished[0], tmp_path / "runs" / "lab")  # the run that notebooks belong to by default
    with Lab(tmp_path / "lab", tmp_path / "runs") as lab:
        lab.open("notebooks/08_serve_vllm.ipynb")
        form = lab.run_to("form.show(")
        political = form.locator(".widget-slider", has_text="political")
        political.get_by_role("slider").press("Home")
        assert political.locator(".widget-readout").text_content() == "0"
        form.get_by_role("button", name="Brief me").click()
        form.get_by_text(re.compile("The evaluator objects|All right")).wait_for()
        assert "political 0 " in form.locator("pre").first.text_content()
        assert form.get_by_role("cell").last.text_content().strip()
        assert form.get_by_role("button", name="Brief me").is_enabled()
        assert (lab.complaints, lab.elsewhere) == ([], [])
        assert len(orphans(tmp_path)) > 3  # JupyterLab, the kernel, the server, the browser
    assert not orphans(tmp_path)


@pytest.mark.real
def test_resume_skips_what_is_done_and_redoes_what_changed(finished):
    folder, _ = finished
    runs = {"ELLE_RUNS": str(folder.parent)}
    again = elle("run", "smoke", "--resume", **runs)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.count("done and unchanged, skipped") == len(profile.load_profile("smoke").notebooks)
    # A resumed run's report said "whole run: 5 s", the time of the last piece.
    card = json.loads((folder / "report.json").read_text())
    assert card["total_seconds"] == pytest.approx(sum(card["step_seconds"].values()), abs=0.1)
    (folder / "manifests" / "03_generate_data.json").unlink()
    third = elle("run", "smoke", "--resume", "--only", "00,03", **runs).stdout
    assert "00_start_here: done and unchanged" in third
    assert "03_generate_data ..." in third


@pytest.mark.real
def test_one_notebook_works_by_itself(tmp_path):
    """`papermill notebooks/05_train.ipynb out.ipynb -p recipe …`, without `elle`, and with nothing before it."""

    def papermill(options: str) -> subprocess.CompletedProcess:
        program = Path(sys.executable).with_name("papermill")
        command = [program, parameters.file_of("05_train"), tmp_path / "out.ipynb", *options.split()]
        env = os.environ | {"ELLE_RUNS": str(tmp_path / "runs")}
        return subprocess.run(command, env=env, cwd=paths.root(), check=False, capture_output=True, text=True)

    done = papermill("-p recipe configs/smoke.yaml -p base configs/smoke_base.yaml -p count 200")
    assert done.returncode == 0, done.stderr[-3000:]
    manifest = json.loads((tmp_path / "runs" / "lab" / "manifests" / "05_train.json").read_text())
    assert manifest["metrics"]["steps"] == 6
    refused = papermill("-p recipee x")
    assert refused.returncode != 0
    assert "unknown parameter 'recipee'" in refused.stderr


@pytest.mark.real
def test_ctrl_c_or_a_kill_leaves_no_process_and_resume_finishes(tmp_path):
    """Interrupted, then killed, while the trainer is at work: nothing is left running, nothing half-written is taken
    for whole, and the training goes on from its checkpoint."""
    command = [sys.executable, "-m", "helpers.cli", "run", "smoke", "--run-id", "cut", "--only", "03,05"]
    folder = tmp_path / "cut"
    options = {"env": os.environ | {"ELLE_RUNS": str(tmp_path)}, "cwd": paths.root()}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    until(lambda: list(folder.glob("train/*/log.txt")), 900, process)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 130, printed
    until(lambda: not orphans(folder), 60)
    assert [path.stem for path in (folder / "manifests").glob("*.json")] == ["03_generate_data"]
    assert not (folder / "notebooks" / "05_train.ipynb").exists()
    assert not list(folder.rglob("*.safetensors.partial"))

    # Resumed, and killed without a chance to clean up, once the training has a checkpoint.
    process = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, **options)
    until(lambda: list(folder.glob("train/*/weights/checkpoint-3/trainer_state.json")), 900, process)
    process.kill()
    process.wait()
    until(lambda: not orphans(folder), 60)
    resumed = elle("run", "smoke", "--resume", "--run-id", "cut", "--only", "03,05", ELLE_RUNS=str(tmp_path))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "03_generate_data: done and unchanged" in resumed.stdout
    (progress,) = folder.glob("train/*/progress.jsonl")
    begins = [event["step"] for event in read_events(progress) if event["event"] == "begin"]
    assert begins[-1] >= 3  # it went on from the checkpoint
    (record,) = folder.glob("train/*/training.json")
    assert json.loads(record.read_text())["attempts"] == 3
