"""One process at a time in a folder: who is let in, who waits, and what a killed one leaves."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from emm import owner, slurm
from emm.errors import Interrupted
from emm.owner import FILE, Owner, exclusive

ELSEWHERE = Owner("another-node", 1, 0.0, None)


def leave(folder: Path, who: Owner, age: float = 0.0) -> Path:
    """The file of an owner who touched it so many seconds ago."""
    path = folder / f".{FILE}"
    path.write_text(json.dumps(asdict(who)))
    os.utime(path, (time.time() - age,) * 2)
    return path


def gone(seconds: float = 0.0) -> Owner:
    """A process of this machine that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return replace(Owner.here(), pid=done.pid)


def test_a_folder_is_held_and_released(tmp_path):
    with exclusive(tmp_path / "run"):
        message = rf"process {os.getpid()} on .* is at work in it"
        with pytest.raises(Interrupted, match=message), exclusive(tmp_path / "run"):
            pass
        with exclusive(tmp_path / "run", "samples"):  # something else in it
            pass
    with exclusive(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_it_is_released_when_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
        raise ZeroDivisionError
    with exclusive(tmp_path):
        pass


def test_a_process_that_is_gone_is_no_owner(tmp_path):
    leave(tmp_path, gone())
    with exclusive(tmp_path):
        assert json.loads((tmp_path / f".{FILE}").read_text())["pid"] == os.getpid()


def test_a_later_process_of_the_same_number_is_no_owner(tmp_path):
    leave(tmp_path, replace(Owner.here(), started=1.0))
    with exclusive(tmp_path):
        pass


def test_elsewhere_a_file_counts_while_it_is_touched(tmp_path):
    leave(tmp_path, ELSEWHERE, age=owner.STALE_SECONDS - 20)
    with pytest.raises(Interrupted, match="process 1 on another-node"), exclusive(tmp_path):
        pass
    leave(tmp_path, ELSEWHERE, age=owner.STALE_SECONDS + 20)
    with exclusive(tmp_path):
        pass


@pytest.mark.parametrize(
    ("alive", "age", "held"),
    [
        (True, 10_000, True),  # suspended, or its file system hangs
        (False, 10_000, False),
        (False, owner.LOST_SECONDS + 5, False),
        (False, 5, True),  # SLURM lost a node whose processes still run
        (None, owner.LOST_SECONDS + 5, True),  # SLURM does not answer
        (None, owner.STALE_SECONDS + 5, False),
    ],
)
def test_the_job_of_an_owner_is_asked_for(tmp_path, monkeypatch, alive, age, held):
    monkeypatch.setattr(slurm, "is_alive", lambda job: alive if job == "77" else None)
    leave(tmp_path, replace(ELSEWHERE, job="77"), age)
    if not held:
        with exclusive(tmp_path):
            return
    with pytest.raises(Interrupted, match=r"\(SLURM job 77\)"), exclusive(tmp_path):
        pass


def test_a_damaged_file_is_of_somebody_until_it_is_old(tmp_path):
    path = tmp_path / f".{FILE}"
    path.write_text("{")
    with pytest.raises(Interrupted, match="another process is at work"), exclusive(tmp_path):
        pass
    os.utime(path, (1, 1))
    with exclusive(tmp_path):
        pass


def test_within_slurm_a_job_waits_for_the_other(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(owner, "POLL_SECONDS", 0.05)
    path = leave(tmp_path, ELSEWHERE)
    monkeypatch.setattr(owner.time, "sleep", lambda seconds: path.unlink())
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with exclusive(tmp_path):
        assert json.loads(path.read_text())["job"] == "12"
    assert "waiting for process 1 on another-node" in capfd.readouterr().err


def _hold(folder: str, seconds: float) -> None:
    with exclusive(folder):
        Path(folder, "held").touch()
        time.sleep(seconds)


def test_a_killed_owner_is_followed_at_once(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(str(tmp_path), 60))
    process.start()
    deadline = time.time() + 20
    while not (tmp_path / "held").exists():
        assert time.time() < deadline
        time.sleep(0.05)
    with pytest.raises(Interrupted), exclusive(tmp_path):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with exclusive(tmp_path):
        pass


def _contend(folder: str, start: float, count: int) -> None:
    """Add one to a number so often, each time as the only owner."""
    time.sleep(max(0.0, start - time.time()))
    number = Path(folder) / "number"
    for _ in range(count):
        with exclusive(folder, wait=True):
            value = int(number.read_text())
            time.sleep(0.001)
            number.write_text(str(value + 1))


def test_only_one_of_many_is_let_in(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "POLL_SECONDS", 0.001)
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    start = time.time() + 0.2
    processes = [
        context.Process(target=_contend, args=(str(tmp_path), start, 10)) for _ in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "60"


def _follow(folder: str, start: float, count: int) -> None:
    """As `_contend`, but each owner dies with its file in place."""
    time.sleep(max(0.0, start - time.time()))
    number = Path(folder) / "number"
    for _ in range(count):
        child = os.fork()
        if not child:
            with exclusive(folder, wait=True):
                value = int(number.read_text())
                time.sleep(0.001)
                number.write_text(str(value + 1))
                os._exit(0)
        os.waitpid(child, 0)


def test_only_one_of_many_follows_a_dead_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "POLL_SECONDS", 0.001)
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    start = time.time() + 0.2
    processes = [context.Process(target=_follow, args=(str(tmp_path), start, 6)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "36"
    with exclusive(tmp_path):
        assert [path.name for path in tmp_path.glob(".*")] == [f".{FILE}"]


def test_an_heir_that_dies_is_followed(tmp_path):
    """Between its claim to follow a dead owner and taking the place."""
    path = leave(tmp_path, gone())
    heir = owner._after(path, owner._read(path))
    heir.write_text(json.dumps(asdict(gone())))
    with exclusive(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_an_heir_that_lives_is_waited_for(tmp_path):
    path = leave(tmp_path, gone())
    owner._after(path, owner._read(path)).write_text(json.dumps(asdict(Owner.here())))
    with pytest.raises(Interrupted, match=f"process {os.getpid()}"), exclusive(tmp_path):
        pass


def test_an_owner_touches_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "TOUCH_SECONDS", 0.02)
    with exclusive(tmp_path):
        os.utime(tmp_path / f".{FILE}", (1, 1))
        deadline = time.time() + 10
        while (tmp_path / f".{FILE}").stat().st_mtime == 1:
            assert time.time() < deadline
            time.sleep(0.01)


def test_a_requeued_job_takes_over_from_itself(tmp_path, monkeypatch):
    """SLURM knows the number as alive, since it is that of the one who asks."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(slurm, "is_alive", lambda job: True)
    monkeypatch.setattr(owner, "POLL_SECONDS", 0.05)
    before = replace(ELSEWHERE, job="12")
    path = leave(tmp_path, before, age=owner.LOST_SECONDS - 20)
    assert owner._is_alive(before, owner._silence(path))  # cut off, it still runs on its node
    os.utime(path, (time.time() - owner.LOST_SECONDS - 1,) * 2)
    with exclusive(tmp_path):
        assert json.loads(path.read_text())["host"] == Owner.here().host


def test_a_full_disk_is_a_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with (
        pytest.raises(Interrupted, match="No space left on device; free some"),
        exclusive(tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_another_container_mean_nothing_here(tmp_path):
    """A live process there has a number that is free here, on a host of the same name."""
    leave(tmp_path, replace(gone(), place="another start"), age=5)
    with pytest.raises(Interrupted), exclusive(tmp_path):
        pass
    leave(tmp_path, replace(gone(), place="another start"), age=owner.STALE_SECONDS + 5)
    with exclusive(tmp_path):
        pass


def test_a_file_that_cannot_be_read_is_of_somebody(tmp_path, monkeypatch):
    mine = leave(tmp_path, Owner.here())

    def refuse(path):
        kind = PermissionError if path == mine else FileNotFoundError
        raise kind(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(Interrupted, match="another process is at work"), exclusive(tmp_path):
        pass


def test_a_link_whose_answer_was_lost(tmp_path, monkeypatch):
    link = os.link

    def lost(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", lost)
    with exclusive(tmp_path):
        assert json.loads((tmp_path / f".{FILE}").read_text())["pid"] == os.getpid()


def _be_displaced(folder: str) -> None:
    owner.TOUCH_SECONDS = 0.05
    with exclusive(folder):
        (Path(folder) / f".{FILE}").write_text(json.dumps(asdict(ELSEWHERE)))
        time.sleep(20)


def test_who_was_taken_for_dead_ends(tmp_path):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_be_displaced, args=(str(tmp_path),))
    process.start()
    process.join(15)
    assert process.exitcode == 75
    assert json.loads((tmp_path / f".{FILE}").read_text())["host"] == "another-node"
