"""`elle run` and plain papermill: what is refused before anything runs, failures that say where, and the whole smoke
profile with the real trainer and the real server."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
import report_parts
from lab import Lab

from cic import claims
from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.training.history import read_events
from helpers.runs import manifest, parameters, pipeline, profile, publish

#: The cells of a notebook that is a step.
WHOLE = ("from helpers import runs", 'runs.start("00_one", globals()).finish()')
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


@pytest.mark.parametrize("arguments", [("report",), ("publish",), ("costs", "--run")])
def test_a_runs_name_does_not_lead_out_of_the_folder_of_runs(arguments):
    done = elle(*arguments, "../x")
    assert (done.returncode, "'../x' is not a plain name" in done.stderr) == (1, True)


@pytest.mark.parametrize(("content", "what"), REFUSALS["profiles"])
def test_a_faulty_profile_is_named(tmp_path, monkeypatch, content, what):
    monkeypatch.setattr(paths, "profiles", lambda: tmp_path)
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ElleError, match=what) as caught:
        profile.load_profile("bad")
    assert caught.value.where.endswith("bad.yaml")


@pytest.mark.parametrize("runs", ["/proc/runs", "/dev/null/runs"])  # no folder can be made there, by nobody
def test_a_folder_that_cannot_be_written_is_named(runs):
    done = elle("run", "nano", "--only", "00", "--run-id", "r", ELLE_RUNS=runs)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert (
        f"cannot write: No such file or directory\n  where: {runs}/r" in done.stderr or "Not a directory" in done.stderr
    )


# Failures


@pytest.fixture
def one_notebook(tmp_path, monkeypatch):
    """A project with one notebook, whose last cells are a test's; its profile is `one`."""
    notebooks, configs = tmp_path / "notebooks", tmp_path / "configs"
    notebooks.mkdir()
    (configs / "profiles").mkdir(parents=True)
    (configs / "profiles" / "one.yaml").write_text('summary: "one"\nnotebooks: [00_one]\n')
    for table in paths.configs().glob("*.yaml"):
        (configs / table.name).symlink_to(table)
    monkeypatch.setenv("ELLE_ROOT", str(tmp_path))

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
    one_notebook(*WHOLE)
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
    assert page.index("default-src 'none'; img-src data:") < page.index("<style")  # nor what a cell's HTML names
    assert (page.count("<math"), page.count("$$"), page.count("<code>$HOME</code>")) == (2, 0, 1)


@pytest.mark.parametrize(
    ("number", "what"), [("SIGKILL", "killed, most often for want of memory"), ("SIGSTOP", "no answer")]
)
def test_a_kernel_that_is_killed_or_does_not_answer_fails_as_a_cell_does(one_notebook, monkeypatch, number, what):
    monkeypatch.setattr(pipeline, "SILENT", 10)
    one_notebook("print('before')", f"import os, signal; os.kill(os.getpid(), signal.{number})")
    with pytest.raises(ElleError, match=rf"notebook 00_one failed in cell \[4\]: .*{what}") as caught:
        pipeline.run_profile("one", run_id="r", say=lambda _: None)
    assert "elle run one --resume --run-id r" in caught.value.fix
    assert "before" in (paths.runs() / "r" / "notebooks" / "00_one.partial.html").read_text()
    assert "before" in (paths.runs() / "r" / "notebooks" / "00_one.partial.ipynb").read_text()


def test_a_step_is_done_with_its_manifest_and_its_finished_notebook(one_notebook):
    """A disk that was full for the page left a manifest without a notebook, which `--resume` took for done. (A limit on
    the size of files stands in for it.)"""
    one_notebook(*WHOLE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ElleError, match=r"00_one failed in cell \[4\]: cannot write: File too large") as caught:
            pipeline.run_profile("one", run_id="r", say=lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "elle run one --resume --run-id r" in caught.value.fix
    folder = paths.runs() / "r"
    assert (folder / "manifests" / "00_one.json").exists()
    said: list[str] = []
    for run_id, executes in (("r", True), ("r", False), ("renamed", False)):
        folder = folder.rename(paths.runs() / run_id)
        pipeline.run_profile("one", run_id=run_id, resume=True, say=said.append)
        assert said[1].endswith("..." if executes else "skipped"), said
        said.clear()
        assert {path.name for path in (folder / "notebooks").iterdir()} == {"00_one.ipynb", "00_one.html"}
    assert {path.name for path in folder.glob(".*")} == set()


def test_two_runs_at_once_do_not_meet_and_one_run_is_not_made_twice(one_notebook, tmp_path):
    """Their kernels' sockets lay in the repository, under the same names."""
    wait = "while not os.path.exists('go'):\n    time.sleep(0.05)"
    one_notebook("import os, time; open(f'began-{run_id}', 'w').close()", wait, *WHOLE)
    (tmp_path / "tmp").mkdir()
    variables = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-m", "helpers.cli", "run", "one", "--run-id"]
    both = [subprocess.Popen([*command, run], env=variables, cwd=tmp_path) for run in "ab"]
    try:
        for run, process in zip("ab", both, strict=True):
            until(lambda run=run: (tmp_path / f"began-{run}").exists(), 60, process)
        refused = elle("run", "one", "--run-id", "a", **variables)
        assert (refused.returncode, "another `elle run` is at work on this run" in refused.stderr) == (1, True)
        assert not list(tmp_path.glob("kernel-*"))
        (tmp_path / "go").touch()
        assert [process.wait(60) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
    assert not list((tmp_path / "tmp").iterdir())


def test_a_notebooks_progress_reaches_the_terminal(one_notebook, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    one_notebook(
        "from helpers.course import show; import time; show.Line().say('step 3 of 6'); time.sleep(2.5)", *WHOLE
    )
    pipeline.run_profile("one", run_id="r")
    assert "\r\x1b[K      step 3 of 6" in capsys.readouterr().err
    assert manifest.STATUS not in os.environ


@pytest.mark.parametrize(
    "record",
    ["{", "[]", "{}", '{"profile": "one"}', '{"profile": "one", "created": "today"}', ""]
    + [f'{{"profile": "one", "created": {created}}}' for created in ("NaN", r'"\ud800"')],
)
def test_the_newest_run_is_found_in_any_time_zone_and_beside_damaged_records(record):
    created = ("2026-11-28T09:00:00+09:00", "2026-11-28T01:00:00+00:00", "2026-11-27T19:30:00-05:00")
    for run_id, at in zip("abc", created, strict=True):
        storage.write_json(paths.runs() / run_id / "run.json", {"profile": "one", "created": at})
    storage.write_text(paths.runs() / "damaged" / "run.json", record)
    # A copy by hand, whose name no command takes.
    storage.write_json(paths.runs() / "my run" / "run.json", {"profile": "one", "created": "2026-11-29T00:00:00+00:00"})
    assert pipeline.latest("one") == "b"


def test_what_others_put_into_the_temporary_folder_is_left_alone(tmp_path, monkeypatch):
    """Whatever was named like a run's folder was emptied."""
    mine = tmp_path / f".report.json.{2**22 + 1}.abc.partial"
    mine.touch()
    with tempfile.TemporaryDirectory() as short:  # in one with a long name no run's folder is made
        monkeypatch.setattr(tempfile, "tempdir", short)
        (Path(short) / "elle-run-killed").mkdir()
        (Path(short) / "elle-run-link").symlink_to(tmp_path)
        with pipeline._scratch() as scratch:
            assert {path.name for path in Path(short).iterdir()} == {scratch.name, "elle-run-link"}
            shutil.rmtree(scratch)  # by a cleaner of /tmp
    assert mine.exists()


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
