"""Long-running subprocesses that are never orphaned and can be re-attached to (Linux).

A job lives in a folder: `log.txt` (its stdout and stderr), `process.json` (who runs it), `exit.json` (how it ended).
Between the caller and the command stands a guardian, this module run as a program: it outlives the caller, sees every
descendant of the command, and ends them all when the job ends, when it is told to, or when the job's owner is gone.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from elle.base import paths, storage  # light, like all imports here: the guardian's start-up is on every job's path
from elle.base.errors import ElleError

VANISHED = -9  # the return code of a job whose guardian ended without writing exit.json (SIGKILL, power loss)
GRACE = 5.0  # seconds between SIGTERM and SIGKILL where nobody gave a time: the owner is gone, or the command has ended
PATIENCE = 120.0  # the same, in seconds, where the caller of `stop` should have come back with a second SIGTERM
POLL = 0.5  # seconds between two looks at the owner

# A log is watched live. And where PYTHONDONTWRITEBYTECODE is set (containers often do), each process of a trainer or
# a server would compile thousands of modules anew: minutes of start-up instead of seconds.
JOB_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": ""}

_SCRATCH = "ELLE_SCRATCH"  # tells the guardian to make a temporary folder

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_BLOCKED = {signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP}
_libc = ctypes.CDLL(None, use_errno=True)

# "(EngineCore pid=12) ERROR 11-22 10:54:44 [core.py:123] " stands before each line of vLLM's own log.
_LOG_PREFIX = re.compile(r"^(\(\w+ pid=\d+\) )?((DEBUG|INFO|WARNING|ERROR|CRITICAL) \S+ \S+ (\[\S+\] )?)?")
_RAISED = re.compile(r"^([\w.]*(Error|Exception|Interrupt)\b.*|\S+: error: .*|.*No module named .*)$")

_guardians: list[subprocess.Popen] = []  # those started here: kept so that they can be reaped (a zombie keeps its pid)


@contextlib.contextmanager
def interruptible(say: Callable[[str], None] | None = None, *, hangup: bool = False) -> Iterator[list[int]]:
    """SIGTERM ends what is inside as Ctrl-C does (in the main thread; elsewhere signals cannot be taken). hangup: so
    does a closed terminal (SIGHUP), but where it is ignored, as under `nohup`. With `say` SIGHUP does, too, and the
    second signal is only told of, for it would cut the ending short; the third does. The list has those that came,
    KeyboardInterrupt its signal's name."""
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        if say and len(came) == 2:
            return say("it is being ended; once more leaves it as it is")
        raise KeyboardInterrupt(signal.Signals(number).name)

    wanted = {signal.SIGTERM: True, signal.SIGINT: say, signal.SIGHUP: say or hangup}
    main = threading.current_thread() is threading.main_thread()
    taken = [number for number, asked in wanted.items() if main and asked]
    before = {n: signal.signal(n, interrupt) for n in taken if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stat(pid: int) -> tuple[str, int, float] | None:
    """State letter, parent, and start time (seconds after boot) of a process; None if there is none."""
    try:
        # The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # Not psutil: its times shift with the wall clock, and importing it would double the guardian's start-up.
    return fields[0].decode(), int(fields[1]), int(fields[19]) / os.sysconf("SC_CLK_TCK")


def created(pid: int) -> float | None:
    """When a live process started, in seconds after boot; None if it has ended (a zombie has).

    With the pid it names a process for good: pids are reused, pairs of pid and start time are not.
    """
    stat = _stat(pid)
    return None if stat is None or stat[0] in "ZX" else stat[2]


def descendants(pid: int) -> list[int]:
    """The pids of all live processes under `pid`, which is itself not among them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (names are all that is wanted)
        if name.isdigit() and (stat := _stat(int(name))) and stat[0] not in "ZX":
            children.setdefault(stat[1], []).append(int(name))
    tree = [pid]
    for parent in tree:  # grows as it is walked
        tree += children.get(parent, [])
    return tree[1:]


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Job:
    """A command that runs, or ran, in a folder. Made by `start` or `attach`."""

    def __init__(self, folder: Path, record: dict):
        self.folder, self.log = folder, folder / "log.txt"
        self.pid: int = record["pid"]  # the guardian's: the command and all it starts are below it
        self.command: list[str] = record["command"]
        self._created: float = record["create_time"]

    @classmethod
    def start(
        cls,
        folder: Path | str,
        command: list[str],
        *,
        env: dict[str, str] | None = None,
        cwd: Path | str | None = None,
        owner: int | None = None,
        scratch: bool = False,
    ) -> "Job":
        """Start `command` in the background.

        Args:
            folder: the job's own; made if missing. The log of an earlier job there is kept as `log.1.txt`.
            command: program and arguments. It is written to `process.json`: never put a secret into it.
            env: variables set on top of this process's own; never written anywhere.
            owner: a pid: the job ends, with all it started, when that process does, however it ends. None: the job
                outlives everything but a reboot, and `attach` finds it again.
            scratch: a temporary folder of its own (TMPDIR), which is removed when the job ends, however it ends.

        Raises:
            ElleError: a job is already running in the folder; the program does not exist; it could not be started.
        """
        folder = Path(folder).resolve()
        environment = {**os.environ, **JOB_ENVIRONMENT, **(env or {}), **({_SCRATCH: "1"} if scratch else {})}
        program = shutil.which(command[0], path=environment.get("PATH"))
        if program is None and not ("/" in command[0] and Path(cwd or ".", command[0]).is_file()):
            raise ElleError(f"no such program: {command[0]}", where=str(folder), fix="install it, or correct its path")
        since = created(owner) if owner is not None else None
        if owner is not None and since is None:
            raise ElleError(f"the job's owner, process {owner}, does not exist", where=str(folder))
        # -P: a file of the working directory must not shadow a module.
        guardian = [sys.executable, "-P", "-m", "elle.base.process", str(folder), f"{owner or 0}", f"{since or 0.0}"]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # one start at a time in a folder, across processes
                cls._make_way(folder)
                with (folder / "log.txt").open("wb") as log:
                    process = subprocess.Popen(
                        [*guardian, *command],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=environment,
                        cwd=cwd,
                        start_new_session=True,  # Ctrl-C and a closed terminal do not reach it
                    )
                _guardians.append(process)
                # The guardian itself writes process.json, so there is no moment at which a job runs unrecorded.
                while not (job := cls.attach(folder)):
                    if process.poll() is not None and not (folder / "process.json").exists():
                        text = (folder / "log.txt").read_text(errors="replace").strip()
                        raise ElleError(f"the job could not be started: {text[-500:]}", where=str(folder))
                    time.sleep(0.01)
                return job
        except OSError as error:
            raise ElleError(f"the job could not be started: {error}", where=str(folder)) from error

    @classmethod
    def _make_way(cls, folder: Path) -> None:
        """Put the record of an earlier job aside; one that still runs is in the way."""
        if (other := cls.attach(folder)) and other.running:
            raise ElleError(
                f"a job is already running in this folder (pid {other.pid})",
                where=str(folder),
                fix="follow it with Job.attach(folder), or end it with Job.attach(folder).stop()",
            )
        for stale in ("process.json", "exit.json"):
            (folder / stale).unlink(missing_ok=True)
        if (folder / "log.txt").exists():
            (folder / "log.txt").replace(folder / "log.1.txt")

    @classmethod
    def attach(cls, folder: Path | str) -> "Job | None":
        """The job of a folder, running or ended; None if none was ever started there."""
        folder = Path(folder).resolve()
        if not (folder / "process.json").exists():
            return None
        return cls(folder, storage.read_json(folder / "process.json"))

    @property
    def running(self) -> bool:
        """Whether the command, or anything it started, is still alive."""
        _guardians[:] = [process for process in _guardians if process.poll() is None]
        return created(self.pid) == self._created

    @property
    def returncode(self) -> int | None:
        """The command's exit code, or minus the signal that ended it; None while running; `VANISHED` if unknown."""
        if self.running:
            return None
        path = self.folder / "exit.json"
        return storage.read_json(path)["code"] if path.exists() else VANISHED

    def tail(self, lines: int = 20) -> str:
        """The log's last lines; of a progress bar's line only what it shows last."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1000 * lines))
            text = file.read().decode("utf-8", errors="replace")
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip("\n").split("\n")[-lines:])

    def reason(self) -> str:
        """Why it ended, in its log's own words: the last exception that is a cause and not a consequence."""
        lines = [_LOG_PREFIX.sub("", line).rstrip() for line in self.log.read_text(errors="replace").splitlines()]
        raised = [number for number, line in enumerate(lines) if _RAISED.match(line)]
        if not raised:
            return f"exit code {self.returncode}; the log ends: {self.tail(3) or '(empty)'}"
        causes = [number for number in raised if "Engine core initialization failed" not in lines[number]]
        number = (causes or raised)[-1]
        # pydantic's first line says only how many errors there are; the next ones say which.
        more = lines[number + 1 : number + 3] if "validation error" in lines[number] else []
        return " ".join([lines[number], *map(str.strip, more)])

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until the job has ended, at most `timeout` seconds; its return code, or None if it still runs."""
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while self.running and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.returncode

    def stop(self, timeout: float = 10.0) -> None:
        """End the job: SIGTERM to the whole tree, SIGKILL to what is left after `timeout` seconds.

        Returns when all are gone; a job that has ended already is left as it is.

        Raises:
            ElleError: something survives even SIGKILL (a process stuck in the kernel).
        """
        for patience in (timeout, 2.0):  # the guardian takes a second SIGTERM for "now kill"
            if not self.running:
                return
            _send([self.pid], signal.SIGTERM)
            self.wait(patience)
        # The guardian itself hangs (stopped, say): its tree is listed now, while it can still be found.
        tree = [*descendants(self.pid), self.pid] if self.running else []
        _send(tree, signal.SIGKILL)
        deadline = time.monotonic() + 5.0
        while any(created(pid) for pid in tree):
            if time.monotonic() > deadline:
                raise ElleError(f"process {self.pid} cannot be ended", where=str(self.folder))
            time.sleep(0.02)


def _reap(child: int) -> tuple[bool, int | None]:
    """Collect dead children: whether any live ones are left, and the exit code of `child` if it was among the dead."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return True, code
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
    return False, code


def _signalled(seconds: float) -> bool:
    """Sleep until a child ends or SIGTERM comes, at most `seconds`; whether it was SIGTERM."""
    got = signal.sigtimedwait({signal.SIGTERM, signal.SIGCHLD}, seconds)
    return got is not None and got.si_signo == signal.SIGTERM


def _guard(folder: Path, owner: int, since: float, command: list[str]) -> None:
    """The body of the guardian process: a keeper does the work, and whichever of the two is killed, the other ends
    everything."""
    me, start = os.getpid(), time.monotonic()
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)  # taken one by one with sigtimedwait
    # Whatever loses its parent becomes our child, even from a session of its own: nothing escapes the tree.
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    record = {"pid": me, "create_time": created(me), "command": command, "owner": owner or None}
    storage.write_json(folder / "process.json", {**record, "started": datetime.now(UTC).isoformat(timespec="seconds")})
    scratch = os.environ.pop(_SCRATCH, "")
    if scratch:
        # Not in the job's folder, whose name may be too long for sockets.
        scratch = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="elle-", dir=paths.temporary(57))
    keeper = os.fork()
    code: int | None = None
    if not keeper:
        try:
            code = _keep(me, owner, since, command)
            storage.write_json(folder / "exit.json", {"code": code, "seconds": round(time.monotonic() - start, 3)})
        finally:
            os._exit(0)
    left = True
    while left:
        left, ended = _reap(keeper)
        code = ended if ended is not None else code
        if code is not None:
            _send(descendants(me), signal.SIGKILL)  # a keeper that ends by itself leaves nothing to kill
        if left and _signalled(0.1 if code is not None else POLL) and code is None:
            _send([keeper], signal.SIGTERM)
    deadline = time.monotonic() + 2.0
    while scratch and Path(scratch).exists() and time.monotonic() < deadline:  # a file may still come in between
        shutil.rmtree(scratch, ignore_errors=True)
        time.sleep(0.02)
    if not (folder / "exit.json").exists():
        storage.write_json(folder / "exit.json", {"code": VANISHED, "seconds": round(time.monotonic() - start, 3)})


def _keep(guardian: int, owner: int, since: float, command: list[str]) -> int:
    """Run `command`, see it end, leave nothing behind; its exit code."""
    me = os.getpid()
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # not inherited
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    def in_child() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != me:
            os._exit(1)  # the keeper was killed before the line above

    def orphaned() -> bool:
        return os.getppid() != guardian or (bool(owner) and created(owner) != since)

    try:
        # Held until the end: a Popen that is let go collects a child that has ended already, and its code is lost.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=in_child)
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr, flush=True)
        return 127
    child = process.pid
    code: int | None = None
    told = False
    while code is None and not told and not orphaned():
        told = _signalled(POLL)
        code = _reap(child)[1]
    # Who called `stop` says when to kill; if nobody can, it is not left to the tree's good will.
    deadline = time.monotonic() + (PATIENCE if told and not orphaned() else GRACE)
    _send(descendants(me), signal.SIGTERM)
    left = True
    while left:
        if orphaned():  # meanwhile
            deadline = min(deadline, time.monotonic() + GRACE)
        if time.monotonic() >= deadline:
            _send(descendants(me), signal.SIGKILL)
        if _signalled(0.1):
            deadline = 0.0
        left, ended = _reap(child)
        code = ended if ended is not None else code
    return VANISHED if code is None else code


if __name__ == "__main__":
    _guard(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
