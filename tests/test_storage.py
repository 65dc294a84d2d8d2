"""Files are whole or absent; a faulty line is named; errors say what, where and how to fix it."""

import os

import pytest

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.jsonl"
    storage.write_lines(path, [{"old": "é"}])

    def failing():
        yield {"new": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        storage.write_lines(path, failing())
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "y.json", {"loss": float("nan")})
    assert list(storage.read_lines(path)) == [{"old": "é"}]
    assert os.listdir(tmp_path) == ["x.jsonl"]  # noqa: PTH208


def test_what_a_killed_process_was_writing_goes_and_what_a_living_one_writes_stays(tmp_path):
    with storage.atomic(tmp_path / "x.json") as file:
        (tmp_path / f".x.json.{2**22 + 1}.abc.partial").touch()  # no process has such a number
        (tmp_path / ".of.somebody.partial").touch()
        with storage.locked(tmp_path):
            assert len(list(tmp_path.glob(".*.partial"))) == 2
        file.write("{}")
    assert {path.name for path in tmp_path.iterdir()} == {"x.json", ".of.somebody.partial"}


@pytest.mark.parametrize(
    ("line", "what"), [(b'{"a": ', "not valid JSON"), (b"[1]", "a JSON list"), (b"\xff\xfe", "not valid JSON")]
)
def test_a_faulty_line_is_named(tmp_path, line, what):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a":1}\n\n' + line + b"\n")
    with pytest.raises(ElleError, match=what) as caught:
        list(storage.read_lines(path))
    assert caught.value.where == f"{path}:3"


def test_files_that_are_not_there_are_clear_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ElleError, match="cannot write") as caught:
        storage.write_json(tmp_path / "file" / "x.json", {})
    assert caught.value.fix
    with pytest.raises(ElleError, match="cannot read"):
        list(storage.read_lines(tmp_path / "none.jsonl"))
    with pytest.raises(ElleError, match="not found"):
        storage.read_json(tmp_path / "none.json")


def test_an_unknown_name_gets_the_nearest_or_the_list():
    assert "did you mean 'nano'" in str(unknown("profile", "nnao", ["nano", "smoke"]))
    assert "nano, smoke" in str(unknown("profile", "zzz", ["smoke", "nano"]))


def test_shown_paths_are_never_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("ELLE_RUNS", str(tmp_path / "runs"))
    assert paths.shown(paths.root() / "configs" / "nano.yaml") == "configs/nano.yaml"
    assert paths.shown(tmp_path / "runs" / "lab") == "runs/lab"
    assert paths.shown("/somewhere/else/file.txt") == "file.txt"
