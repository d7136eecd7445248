"""What a start of the workflow sets up."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from emm import checkout


def test_jobs_find_this_checkout_first(monkeypatch):
    monkeypatch.setenv("PATH", "/other/bin")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    checkout.use_checkout()
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/other/bin"
    assert os.environ["PYTHONPATH"] == str(Path(checkout.__file__).parent.parent)


@pytest.mark.parametrize("remote", [False, True])
def test_the_limit_of_starts_is_lifted_where_jobs_run_here(remote):
    scheduler = SimpleNamespace(job_rate_limiter="100/1s")
    checkout.start_without_limit(SimpleNamespace(non_local_exec=remote, scheduler=scheduler))
    assert scheduler.job_rate_limiter == ("100/1s" if remote else None)


def test_snakemake_still_has_what_is_lifted():
    """The attribute belongs to no public interface: a new version may call it otherwise."""
    source = Path(pytest.importorskip("snakemake").__file__).parent
    text = (source / "scheduling" / "job_scheduler.py").read_text()
    assert "self.job_rate_limiter = (" in text
    assert "if self.job_rate_limiter is None:" in text
