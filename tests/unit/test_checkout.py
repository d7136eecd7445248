"""What a start of the workflow sets up."""

import os
import sys
from functools import partial
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


def rule_function(wildcards, output):
    return wildcards, output


def test_functions_of_rules_tell_the_same_parameters_when_asked_once(monkeypatch):
    """`get_function_params` belongs to no public interface either: rules and resources ask it."""
    common = pytest.importorskip("snakemake.common")
    from snakemake import resources, rules

    functions = [
        *(rule_function, lambda w: w, lambda **given: given, partial(rule_function, 1)),
        *(rules.Rule.products, resources.Resource("mem_mb", lambda w, attempt: attempt).evaluate),
    ]
    plain = [dict(common.get_function_params(function)) for function in functions]
    for module in (common, rules):
        monkeypatch.setattr(module, "get_function_params", module.get_function_params)
    monkeypatch.setattr(checkout.gc, "freeze", lambda: None)
    checkout.plan_lightly()
    for function, expected in zip(functions, plain, strict=True):
        assert rules.get_function_params(function) == expected
        assert rules.get_function_params(function) is common.get_function_params(function)
    told = common.get_input_function_aux_params(rule_function, {"output": 1, "input": 2})
    assert told == {"output": 1}
