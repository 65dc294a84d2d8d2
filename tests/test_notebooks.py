"""The notebooks as files: parameters papermill can set, the shape of a lesson, clean outputs, working solutions."""

import ast
import json
import re
import shutil

import nbformat
import pytest
from papermill import inspect_notebook

from elle.base import paths
from elle.base.errors import ElleError
from helpers import runs
from helpers.runs import manifest, parameters, pipeline, profile

NOTEBOOKS = sorted(paths.notebooks().glob("*.ipynb"))
SOLUTIONS = sorted((paths.notebooks() / "solutions").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@by_name
def test_its_parameters_are_plain_lines_with_help(path):
    declared = parameters.parameters(path)
    assert "run_id" in declared
    for parameter in declared.values():
        assert parameter.help, parameter.name
        assert parameter.convert(parameter.default, "") == parameter.default
    seen = {name: ast.literal_eval(facts["default"]) for name, facts in inspect_notebook(str(path)).items()}
    assert seen == {name: parameter.default for name, parameter in declared.items()}  # papermill reads the same


@by_name
def test_it_has_the_shape_of_a_lesson(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    learn, need = "**You will learn**", "**You need**"
    for part in ("# ", learn, need, "## A common mistake", "## Exercise", "## Checks", "## Remember"):
        assert part in text, part
    assert re.search(r"\| time, cost \|", text)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (path.parent / target).exists(), target
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    assert f'runs.start("{path.stem}", globals())' in "\n".join(code[:2])
    assert re.search(r"^answer = None  # .+\nexercises\.\w+\(answer", code[-2])  # of the batch: asked, not answered
    assert "run.finish(" in code[-1]
    assert "run.check(" in code[-1]
    # It starts no process of its own, and has one code path.
    assert not re.search(r"^\s*[!%]|subprocess|smoke", "\n".join(code), re.MULTILINE)


@by_name
def test_no_cell_uses_what_an_exercise_overwrites(path):
    """The exercise of 04 set `answer` to None, which was the plan's."""
    code = [parameters.source(cell) for cell in parameters.code_cells(path)]
    (asked,) = [place for place, text in enumerate(code) if text.startswith("answer = None")]
    for text in code[asked + 1 :]:
        names = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and node.id == "answer"]
        bound = any(isinstance(name.ctx, ast.Store) for name in names)
        assert bound or not names, text


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_committed_is_small_and_clean(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) <= 200_000
    book = json.loads(text)
    assert "widgets" not in book["metadata"]
    outputs = json.dumps([cell.get("outputs", []) for cell in book["cells"]])
    assert '"output_type": "error"' not in outputs
    assert '"name": "stderr"' not in outputs  # warnings, which frighten
    assert "widget-view" not in outputs  # a form, or a progress bar: dead outside the kernel that made it
    for absolute in ("/home/", "/root/", "/work/", "/tmp/", "/Users/"):
        assert absolute not in outputs, absolute


@by_name
def test_its_outputs_are_those_of_its_code(path):
    """`make notebooks` refreshes them all."""
    stamp = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("elle", {}).get("stamp")
    assert stamp == parameters.stamp(path), "stale or missing outputs: run `make notebooks`"
    assert any(cell["outputs"] for cell in parameters.code_cells(path))


def test_every_notebook_has_a_solution():
    assert [path.name for path in SOLUTIONS] == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_the_solution_works(path):
    namespace: dict = {}
    for cell in parameters.code_cells(path):
        exec(compile(parameters.source(cell), str(path), "exec"), namespace)
    assert namespace["reply"]  # the check of the notebook's own exercise takes it


def test_every_profile_names_notebooks_and_parameters_that_exist():
    assert {"nano", "smoke"} <= set(profile.profile_names())
    for name in profile.profile_names():
        chosen = profile.load_profile(name)
        assert set(pipeline.step_parameters(chosen, chosen.notebooks, {})) == set(chosen.notebooks)


# Parameters


def test_a_parameter_line_of_another_form_is_refused(tmp_path):
    def written(text):
        cell = nbformat.v4.new_code_cell(text, metadata={"tags": ["parameters"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
        return tmp_path / "x.ipynb"

    assert parameters.parameters(written('a: int = -3  # help\nb: str = "x#y"  # more'))["a"].default == -3
    for text in ("a = 3", "a: int = 1 + x", "a: list = []", "import os"):
        with pytest.raises(ElleError, match="not a parameter"):
            parameters.parameters(written(text))
    with pytest.raises(ElleError, match="unknown notebook"):
        parameters.parameters(tmp_path / "y.ipynb")


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("int", "12", 12), ("float", "1e-3", 1e-3), ("float", 2, 2.0), ("bool", "true", True), ("bool", "False", False),
        ("int", "1.5", None), ("int", True, None), ("bool", "yes", None), ("str", 3, None), ("float", "", None),
    ],
)  # fmt: skip
def test_a_value_is_read_as_its_parameters_type_or_refused(type_, value, expected):
    parameter = parameters.Parameter("p", type_, None, "")
    if expected is not None:
        assert parameter.convert(value, "") == expected
        return
    # `papermill … -p seeds 7` gives the notebook a number: it is told how papermill takes a text.
    with pytest.raises(ElleError, match="-r p 3" if type_ == "str" else f"p is a {type_}"):
        parameter.convert(value, "")


def test_an_injected_parameter_that_does_not_exist_and_a_run_that_is_no_plain_name_are_refused():
    namespace = {"run_id": "x", "In": ["", 'run_id: str = "lab"  # …', '# Parameters\nrun_id = "x"\nrunid = "y"\n']}
    with pytest.raises(ElleError, match="unknown parameter 'runid'") as caught:
        runs.start("00_start_here", namespace)
    assert "run_id" in caught.value.fix
    for run_id in ("", "../x", ".hidden", "a b", "/x", ".", "x\n", "x" * 61):
        with pytest.raises(ElleError, match="plain name"):
            runs.start("00_start_here", {"run_id": run_id})


# A step and its manifest


def test_a_step_is_current_until_something_it_rests_on_changes(tmp_path, capsys):
    given = {"run_id": "r"}
    earlier = runs.start("00_start_here", given)
    with pytest.raises(ElleError, match="continues from 05_train") as caught:
        earlier.need("05_train")
    assert "05_train.ipynb first" in caught.value.fix
    earlier.finish(figure=1)
    run = runs.start("10_report_card", given)
    assert run.need("00_start_here") == {"figure": 1}
    run.uses("configs/nano.yaml")
    artifact = run.path("made.txt")
    artifact.write_text("x")
    run.made(artifact)
    with pytest.raises(ElleError, match="check failed: water is wet"):
        run.check(False, "water is wet")
    run.finish()

    def current():
        return manifest.is_current("10_report_card", run.folder, given)

    assert current()
    assert manifest.is_current("10_report_card", run.folder, {"run_id": "other"})  # its folder was renamed
    artifact.write_text("y")  # the same length, another content
    assert not current()
    artifact.write_text("x")
    assert current()
    earlier.finish(figure=2)
    assert not current()
    runs.start("10_report_card", given).finish()
    assert current()
    runs.start("10_report_card", given)  # it begins again: its old manifest must not vouch for it
    assert not current()
    assert "/" + str(tmp_path).strip("/") not in capsys.readouterr().out


def test_a_step_that_sums_up_the_run_is_not_current_when_another_step_changes_or_is_added():
    """A resumed run trained anew and kept the report's notebook of the model before."""
    given = {"run_id": "r"}
    first, run = runs.start("00_start_here", given), runs.start("10_report_card", given)
    first.finish(figure=1)
    run.sums_up()
    run.finish()
    folder = run.folder / "manifests"
    assert manifest.is_current("10_report_card", run.folder, given)
    shutil.copy(folder / "00_start_here.json", folder / "07_evaluate.json")
    assert not manifest.is_current("10_report_card", run.folder, given)
    (folder / "07_evaluate.json").unlink()
    first.finish(figure=2)
    assert not manifest.is_current("10_report_card", run.folder, given)


def test_a_misspelt_metric_is_refused_with_the_nearest_name():
    """It made the report say NOT RUN, in silence."""
    declared = parameters.parameters(parameters.file_of("05_train"))
    run = runs.start("05_train", {name: parameter.default for name, parameter in declared.items()})
    with pytest.raises(ElleError, match="unknown metrics of 05_train key 'weigths'") as caught:
        run.finish(recipe="configs/nano.yaml", steps=6, seconds=1.0, weigths="train/weights")
    assert (caught.value.where, caught.value.fix) == ("notebooks/05_train.ipynb", "did you mean 'weights'?")
    with pytest.raises(ElleError, match="steps: Field required"):
        run.finish(recipe="configs/nano.yaml", seconds=1.0)
    assert not run.path("manifests", "05_train.json").exists()
