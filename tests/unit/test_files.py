"""Files are whole or absent, and damaged ones are refused."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emm.errors import Interrupted, UserError
from emm.files import atomic_path, checked, read_arrays, sha256, write_arrays, write_text


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_text_is_replaced(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(str(tmp_path / "a.txt"), "né\n")
    assert (tmp_path / "a.txt").read_bytes() == b"n\xc3\xa9\n"


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.EIO, "x")])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failure_leaves_what_was_there(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(type(error)), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_file_that_is_not_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_content_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    path, calls = tmp_path / "a.txt", []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.fstat(fd).st_size), fsync(fd)))

    def note(self, target):
        calls.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    write_text(path, "12345")
    assert calls == [5, path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_can_be_resumed_from(tmp_path, monkeypatch, number):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Interrupted) as caught:
        write_text(path, "new")
    assert str(caught.value) == (
        f"{path}: {os.strerror(number)}; free some space and run the same command again"
    )
    assert caught.value.exit_code == 75
    assert not isinstance(caught.value, UserError)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


WRITERS = {
    "files.write_text": "write_text(path, 'x' * 10**6)",
    "files.write_arrays": "write_arrays(path, {'images': np.zeros(10**6)})",
    "parquet.write_table": "write_table(path, pd.DataFrame({'x': rng.random(10**5)}))",
    "checkpoint.save": "checkpoint.save(path, {'x': torch.zeros(10**6)}, {})",
}


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path):
    """The real thing, for every way of writing: the old files stay and nothing else is left."""
    for name in WRITERS:
        (tmp_path / name).write_text("old")
    code = f"""
import os, resource, sys
import numpy as np, pandas as pd, torch
from pathlib import Path
from emm.analyse.parquet import write_table
from emm.errors import Interrupted
from emm.files import write_arrays, write_text
from emm.train import checkpoint
rng = np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name, call in {WRITERS!r}.items():
    path = Path({str(tmp_path)!r}) / name
    try:
        exec(call)
    except Interrupted as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [
        f"{tmp_path / name}: File too large; free some space and run the same command again"
        for name in WRITERS
    ]
    assert done.stdout.splitlines() == expected
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        WRITERS, "old"
    )


def test_a_path_that_cannot_be_written_to(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file/a.txt"):
        with pytest.raises(UserError, match=f"{name}: cannot be written \\(") as caught:
            write_text(tmp_path / name, "new")
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.fixture
def archive(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.npz"
    images = rng.integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    write_arrays(path, {"images": images, "labels": np.arange(4), "n": np.int64(7)})
    return path


def test_arrays_come_back(archive):
    arrays = read_arrays(str(archive))
    assert {name: (a.shape, a.dtype.name) for name, a in arrays.items()} == {
        "images": ((4, 5, 5, 3), "uint8"),
        "labels": ((4,), "int64"),
        "n": ((), "int64"),
    }
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(arrays["images"], images)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.99])
def test_truncated_archives_are_refused(archive, share):
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a\.npz: damaged \(.*\); delete it and run again$") as got:
        read_arrays(archive)
    assert "\n" not in str(got.value)


def read_or_refuse(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, none where it is refused."""
    try:
        return read_arrays(path)
    except UserError:
        return {}


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_flipped_bits_never_pass_for_other_arrays(tmp_path_factory, position, bit):
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    arrays = {"images": np.arange(100, dtype=np.uint8), "labels": np.arange(4)}
    write_arrays(path, arrays)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    for name, values in read_or_refuse(path).items():
        np.testing.assert_array_equal(values, arrays[name])


def test_what_is_no_archive(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz: no such file$"):
        read_arrays(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)$"):
        read_arrays(tmp_path)
    objects = tmp_path / "objects.npz"
    np.savez(objects, x=np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        read_arrays(objects)


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), KeyError("images"), EOFError(), OSError("x")]
)
def test_checked_reads_explain_in_one_line(tmp_path, error):
    def read(_path):
        raise error

    with pytest.raises(UserError, match="damaged") as caught:
        checked(tmp_path, read)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_checked_reads_let_other_errors_through(tmp_path):
    for error in (UserError("mine"), Interrupted("stop"), ZeroDivisionError()):

        def read(_path, error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            checked(tmp_path, read)
        assert caught.value is error


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "a") == sha256(str(tmp_path / "a")) == expected
