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
from elle.base.process import VANISHED, Job, created, descendants, interruptible

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
    while not (reached := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(reached)


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


@pytest.fixture
def family(folder, tmp_path) -> tuple[Job, list[int]]:
    """A running job, and the pids of all that it started."""
    return Job.start(folder, python(FAMILY, tmp_path)), pids(tmp_path, "child", "apart", "below")


def test_a_job_ends_with_its_code_its_log_and_its_record(folder):
    """The log of a progress bar is its last state; the environment is handed over, and never written."""
    code = "import os, sys; print(len(os.environ['A_SECRET'])); print('10%\\r50%\\r100%'); print(*range(98), sep='\\n')"
    job = Job.start(folder, python(f"{code}; print('err', file=sys.stderr); sys.exit(3)"), env={"A_SECRET": "s3cr3t"})
    assert job.wait(20) == job.returncode == 3
    assert not job.running
    assert job.tail(200).split("\n") == ["6", "100%", *map(str, range(98)), "err"]
    assert job.tail(2).split("\n") == ["97", "err"]
    assert not any("s3cr3t" in path.read_text() for path in folder.iterdir())
    record = json.loads((folder / "process.json").read_text())
    assert set(record) == {"pid", "create_time", "command", "started", "owner"}
    assert set(json.loads((folder / "exit.json").read_text())) == {"code", "seconds"}


@pytest.mark.parametrize("how", ["by itself", "stopped", "killed"])
def test_a_temporary_folder_of_its_own_goes_with_the_job(folder, how, monkeypatch):
    """vLLM leaves its sockets lying there, whose paths must be short."""
    monkeypatch.setenv("TMPDIR", str(folder.parent))
    code = "import os, sys, time; open(os.environ['TMPDIR'] + '/x', 'w'); print(os.environ['TMPDIR'], flush=True)"
    wait = "; time.sleep(float(sys.argv[1]))"
    job = Job.start(folder, python(code + wait, 0 if how == "by itself" else 300), scratch=True)
    assert until(job.tail)
    scratch = Path(job.tail())
    assert scratch.match("/tmp/elle-*")
    if how == "stopped":
        job.stop()
    elif how == "killed":
        os.kill(descendants(job.pid)[-1], signal.SIGKILL)
    job.wait(20)
    assert not scratch.exists()


def test_a_command_that_ends_at_once_ends_its_job(tmp_path):
    """On a busy machine its exit code was collected by another hand, and the job never ended."""
    jobs = [Job.start(tmp_path / str(number), ["true"]) for number in range(8)]
    assert [job.wait(20) for job in jobs] == [0] * 8


def test_starting_twice_in_a_folder_is_refused_and_says_how_to_go_on(folder):
    assert Job.attach(folder) is None
    job = Job.start(folder, ["sleep", "300"])
    assert job.wait(0.2) is None  # it gives up, and the job goes on
    with pytest.raises(ElleError, match=str(job.pid)) as caught:
        Job.start(folder, ["sleep", "300"])
    for part in (str(folder), "attach", "stop"):
        assert part in str(caught.value)
    assert job.running
    assert job.returncode is None


def test_a_second_run_keeps_the_first_ones_log_and_forgets_its_exit(folder):
    Job.start(folder, python("print('first'); raise SystemExit(4)")).wait(20)
    job = Job.start(folder, python("print('second'); import time; time.sleep(300)"))
    assert job.returncode is None
    assert (folder / "log.1.txt").read_text().strip() == "first"
    assert until(lambda: job.tail() == "second")


def test_a_program_or_an_owner_that_does_not_exist_is_named(folder):
    for program in ("no-such-program", "no/such/path"):
        with pytest.raises(ElleError, match=program):
            Job.start(folder, [program, "x"])
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(ElleError, match="does not exist"):
        Job.start(folder, ["sleep", "300"], owner=process.pid)
    assert Job.attach(folder) is None


def test_another_process_attaches_to_a_job_whose_starter_is_gone(folder):
    starter = f"from elle.base.process import Job; Job.start({str(folder)!r}, ['sleep', '300'])"
    subprocess.run([sys.executable, "-c", starter], check=True, timeout=60)
    job = Job.attach(folder)
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


def test_stop_ends_the_whole_tree_also_what_went_into_another_session(family):
    job, members = family
    assert set(members) <= set(descendants(job.pid))
    start = time.monotonic()
    job.stop()
    assert gone(members)
    assert time.monotonic() - start < 8
    job.stop()  # once more is no error


def test_stop_kills_what_ignores_sigterm(folder):
    job = Job.start(folder, python(STUBBORN))
    assert until(lambda: job.tail() == "ready")
    members, start = descendants(job.pid), time.monotonic()
    job.stop(timeout=1.0)
    assert 1.0 <= time.monotonic() - start < 8
    assert gone(members)
    assert job.returncode == -signal.SIGKILL


def test_what_a_command_leaves_behind_ends_with_it(folder, tmp_path):
    # The command ends once all have noted their pids, the child in its own session never.
    wait = """below, leader = f"{folder}/below", os.getsid(0) == os.getpid()
while leader or not (os.path.exists(below) and os.path.getsize(below)):
    time.sleep(0.02)"""
    short = FAMILY.replace("time.sleep(300)", wait)
    assert Job.start(folder, python(short, tmp_path)).wait(30) == 0
    assert gone(pids(tmp_path, "child", "apart", "below"))


def test_the_job_dies_with_its_owner_even_by_sigkill(folder, tmp_path):
    start = f"Job.start({str(folder)!r}, {python(FAMILY, tmp_path)!r}, owner=os.getpid())"
    code = f"import os, time; from elle.base.process import Job; {start}; time.sleep(300)"
    owner = subprocess.Popen([sys.executable, "-c", code])
    try:
        members = pids(tmp_path, "child", "apart", "below")
        job = Job.attach(folder)
        assert job.running
    finally:
        owner.kill()
    # The owner stays a zombie until it is waited for: it must count as gone all the same.
    assert until(lambda: gone(members) and not job.running, 15)
    owner.wait()
    assert job.returncode == -signal.SIGTERM


def test_a_stubborn_job_dies_soon_when_its_owner_is_killed_while_it_stops_it(folder):
    """It was given the two minutes of an owner that would come back."""
    start = f"job = Job.start(Path({str(folder)!r}), {python(STUBBORN)!r}, owner=os.getpid())"
    imports = "import os, sys; from pathlib import Path; from elle.base.process import Job"
    code = f"{imports}; {start}; sys.stdin.readline(); job.stop(timeout=100)"
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert until(lambda: (job := Job.attach(folder)) and job.tail() == "ready", 15)
    job = Job.attach(folder)
    members = descendants(job.pid)
    owner.stdin.write(b"\n")
    owner.stdin.flush()
    time.sleep(1)  # the signal is on its way
    owner.kill()
    owner.communicate()
    assert until(lambda: gone(members) and not job.running, 15)


@pytest.mark.parametrize("who", ["guardian", "keeper"])
def test_a_killed_guardian_takes_the_whole_tree_with_it(family, who):
    job, members = family
    tree = descendants(job.pid)
    (keeper,) = set(tree) - set(members)
    os.kill(job.pid if who == "guardian" else keeper, signal.SIGKILL)
    assert until(lambda: gone(tree) and not job.running, 15)
    assert job.returncode in (VANISHED, -signal.SIGTERM)


def test_sigterm_and_a_closed_terminal_interrupt_but_what_nohup_ignores_stays_ignored():
    for number in (signal.SIGTERM, signal.SIGHUP):
        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt), interruptible(hangup=True):
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is before
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible(hangup=True):
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def test_a_stopped_guardian_is_ended_too(family):
    job, members = family
    os.kill(job.pid, signal.SIGSTOP)
    job.stop(timeout=0.5)
    assert not job.running
    assert gone(members)
