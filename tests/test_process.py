"""Jobs: recorded, re-attachable, and never orphaned. Real processes, no mocks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elle.base.errors import ElleError
from elle.base.process import VANISHED, Job, created, descendants

# A command with a child in its own session and a grandchild; each writes its pid, and none minds SIGHUP.
FAMILY = """
import os, sys, time
folder = sys.argv[1]
def note(name):
    open(f"{folder}/{name}", "w").write(str(os.getpid()))
note("child")
if os.fork() == 0:
    os.setsid()
    note("apart")
    if os.fork() == 0:
        note("below")
time.sleep(300)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(300)"


def until(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def pids(folder: Path, *names: str) -> list[int]:
    """Wait until the family's members have noted their pids."""
    files = [folder / name for name in names]
    assert until(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def gone(found: list[int]) -> bool:
    return all(created(pid) is None for pid in found)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "job"
    if job := Job.attach(tmp_path / "job"):
        job.stop(timeout=0.5)


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-S", "-c", code, *map(str, arguments)]


def test_a_job_ends_with_its_code_its_log_and_its_record(folder):
    job = Job.start(folder, python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert job.wait(20) == 3
    assert not job.running
    assert job.returncode == 3
    assert job.tail().split() == ["out", "err"]
    record = json.loads((folder / "process.json").read_text())
    assert set(record) == {"pid", "create_time", "command", "started", "owner"}
    assert set(json.loads((folder / "exit.json").read_text())) == {"code", "seconds"}


@pytest.mark.parametrize("how", ["by itself", "stopped", "killed"])
def test_a_temporary_folder_of_its_own_goes_with_the_job(folder, how):
    """vLLM leaves its sockets lying there."""
    code = "import os, sys, time; open(os.environ['TMPDIR'] + '/x', 'w'); print(os.environ['TMPDIR'], flush=True)"
    wait = "; time.sleep(float(sys.argv[1]))"
    job = Job.start(folder, python(code + wait, 0 if how == "by itself" else 300), scratch=True)
    assert until(lambda: job.tail())
    scratch = Path(job.tail())
    assert scratch.name.startswith("elle-")
    if how == "stopped":
        job.stop()
    elif how == "killed":
        assert (scratch / "x").exists()
        os.kill(descendants(job.pid)[-1], signal.SIGKILL)
    job.wait(20)
    assert not scratch.exists()


def test_a_command_that_ends_at_once_ends_its_job(tmp_path):
    """On a busy machine its exit code was collected by another hand, and the job never ended."""
    jobs = [Job.start(tmp_path / str(number), ["true"]) for number in range(8)]
    assert [job.wait(20) for job in jobs] == [0] * 8


def test_tail_shows_the_last_lines_and_of_a_progress_bar_only_its_last_state(folder):
    job = Job.start(folder, python(r"print(*range(100), sep='\n'); print('10%\r50%\r100%')"))
    job.wait(20)
    assert job.tail(3).split("\n") == ["98", "99", "100%"]


def test_the_environment_is_handed_over_and_never_written(folder):
    job = Job.start(folder, python("import os; print(len(os.environ['A_SECRET']))"), env={"A_SECRET": "s3cr3t-value"})
    job.wait(20)
    assert job.tail() == "12"
    assert not any("s3cr3t-value" in path.read_text() for path in folder.iterdir())


def test_starting_twice_in_a_folder_is_refused_and_says_how_to_go_on(folder):
    assert Job.attach(folder) is None
    job = Job.start(folder, ["sleep", "300"])
    assert job.wait(0.2) is None  # it gives up, and the job goes on
    with pytest.raises(ElleError, match=str(job.pid)) as caught:
        Job.start(folder, ["sleep", "300"])
    assert str(folder) in str(caught.value)
    assert "attach" in str(caught.value)
    assert "stop" in str(caught.value)
    assert job.running
    assert job.returncode is None


def test_a_second_run_keeps_the_first_ones_log_and_forgets_its_exit(folder):
    Job.start(folder, python("print('first'); raise SystemExit(4)")).wait(20)
    job = Job.start(folder, python("print('second'); import time; time.sleep(300)"))
    assert job.returncode is None
    assert (folder / "log.1.txt").read_text().strip() == "first"
    assert until(lambda: job.tail() == "second")


def test_a_program_that_does_not_exist_is_named(folder):
    for program in ("no-such-program", "no/such/path"):
        with pytest.raises(ElleError, match=program):
            Job.start(folder, [program, "x"])
    assert Job.attach(folder) is None


def test_an_owner_that_does_not_exist_is_refused(folder):
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(ElleError, match="does not exist"):
        Job.start(folder, ["sleep", "300"], owner=process.pid)


def test_another_process_attaches_to_a_job_whose_starter_is_gone(folder):
    starter = f"from elle.base.process import Job; Job.start({str(folder)!r}, ['sleep', '300'])"
    subprocess.run([sys.executable, "-c", starter], check=True, timeout=60)
    job = Job.attach(folder)
    assert job is not None
    assert job.running
    assert job.command == ["sleep", "300"]
    job.stop()
    assert not job.running
    assert job.returncode == Job.attach(folder).returncode == -signal.SIGTERM


def test_a_reused_pid_is_not_taken_for_the_job(folder):
    Job.start(folder, ["true"]).wait(20)
    record = json.loads((folder / "process.json").read_text())
    record["pid"] = os.getpid()  # alive, but started at another time
    (folder / "process.json").write_text(json.dumps(record))
    assert not Job.attach(folder).running


def test_stop_ends_the_whole_tree_also_what_went_into_another_session(folder, tmp_path):
    job = Job.start(folder, python(FAMILY, tmp_path))
    family = pids(tmp_path, "child", "apart", "below")
    assert set(family) <= set(descendants(job.pid))
    start = time.monotonic()
    job.stop()
    assert gone(family)
    assert time.monotonic() - start < 8
    job.stop()  # once more is no error


def test_stop_kills_what_ignores_sigterm(folder):
    job = Job.start(folder, python(STUBBORN))
    assert until(lambda: job.tail() == "ready")
    family = descendants(job.pid)
    start = time.monotonic()
    job.stop(timeout=1.0)
    assert 1.0 <= time.monotonic() - start < 8
    assert gone(family)
    assert job.returncode == -signal.SIGKILL


def test_what_a_command_leaves_behind_ends_with_it(folder, tmp_path):
    short = FAMILY.replace("time.sleep(300)", "time.sleep(300 * (os.getsid(0) == os.getpid()))")
    assert Job.start(folder, python(short, tmp_path)).wait(30) == 0
    assert gone(pids(tmp_path, "child", "apart", "below"))


def test_the_job_dies_with_its_owner_even_by_sigkill(folder, tmp_path):
    code = f"""
import os, time
from elle.base.process import Job
Job.start({str(folder)!r}, {python(FAMILY, tmp_path)!r}, owner=os.getpid())
time.sleep(300)
"""
    owner = subprocess.Popen([sys.executable, "-c", code])
    try:
        family = pids(tmp_path, "child", "apart", "below")
        job = Job.attach(folder)
        assert job.running
    finally:
        owner.kill()
    # The owner stays a zombie until it is waited for: it must count as gone all the same.
    assert until(lambda: gone(family) and not job.running, 15)
    owner.wait()
    assert job.returncode == -signal.SIGTERM


@pytest.mark.parametrize("who", ["guardian", "keeper"])
def test_a_killed_guardian_takes_the_whole_tree_with_it(folder, tmp_path, who):
    job = Job.start(folder, python(FAMILY, tmp_path))
    family = pids(tmp_path, "child", "apart", "below")
    tree = descendants(job.pid)
    keeper = [pid for pid in tree if pid not in family]
    assert len(keeper) == 1
    os.kill(job.pid if who == "guardian" else keeper[0], signal.SIGKILL)
    assert until(lambda: gone(tree) and not job.running, 15)
    assert job.returncode in (VANISHED, -signal.SIGTERM)


def test_a_stopped_guardian_is_ended_too(folder):
    job = Job.start(folder, ["sleep", "300"])
    assert until(lambda: descendants(job.pid))
    family = descendants(job.pid)
    os.kill(job.pid, signal.SIGSTOP)
    job.stop(timeout=0.5)
    assert not job.running
    assert gone(family)
