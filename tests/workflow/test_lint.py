"""The Snakefile and its rules: format, lint, size and habits."""

import re

import pytest

from emm.analyse.checks import RULES

GPU_RULES = {
    *("train", "sample", "score", "features"),
    *("ideals", "criteria", "quality", "twins"),
}


def rules(project) -> dict[str, str]:
    """Texts of all rules that run a command, by name."""
    text = "\n".join(path.read_text() for path in (project.folder / "workflow").rglob("*.smk"))
    found = dict(re.findall(r"^rule (\w+):\n((?:(?: .*)?\n)+)", text, re.M))
    return {name: body for name, body in found.items() if "    shell:" in body}


def test_the_rules_are_found(shipped):
    assert {*GPU_RULES, "data", "subset", "tables", "figure", "report"} <= set(rules(shipped))


def test_snakemake_lint_is_silent(shipped):
    done = shipped.run("snakemake", "--lint")
    assert done.returncode == 0, done.stdout


def test_formatted(shipped):
    done = shipped.run("snakefmt", "--check", "Snakefile", "workflow/rules")
    assert done.returncode == 0, done.stdout


def test_snakefile_is_short(shipped):
    assert len((shipped.folder / "Snakefile").read_text().splitlines()) < 80


def test_rule_files_are_short_and_say_what_goes_in_and_out(shipped):
    for path in (shipped.folder / "workflow" / "rules").glob("*.smk"):
        text = path.read_text()
        assert len(text.splitlines()) < 150, path.name
        assert text.startswith("# In:  "), path.name
        assert "Out: " in text.split("\n\n")[0], path.name


@pytest.mark.parametrize("word", ["checkpoint", "run", "script", "retries"])
def test_avoided_directives(shipped, word):
    for path in [shipped.folder / "Snakefile", *(shipped.folder / "workflow").rglob("*.smk")]:
        assert not re.search(rf"^\s*{word}\b[^=\n]*:", path.read_text(), re.M), path.name


def test_every_command_has_a_log_and_limits(shipped):
    for name, text in rules(shipped).items():
        assert "    log:" in text, name
        assert re.search(r"2>(\{log:q\}|&1)", text), name
        if "localrule: True" not in text:
            assert "mem_mb=" in text, name
            assert "runtime=" in text, name


def test_gpu_rules_ask_for_a_gpu_and_are_measured(shipped):
    found = {name for name, text in rules(shipped).items() if "gpu=" in text}
    assert found == GPU_RULES
    for name in GPU_RULES:
        assert "    benchmark:" in rules(shipped)[name]


def test_long_options_only(shipped):
    for name, text in rules(shipped).items():
        command = text.partition("    shell:")[2]
        assert not re.search(r"\s-\w\b", command), name


def test_no_figure_can_take_the_name_of_a_rule(shipped):
    paths = [shipped.folder / "Snakefile", *(shipped.folder / "workflow" / "rules").glob("*.smk")]
    text = "\n".join(path.read_text() for path in paths)
    names = set(re.findall(r"^(?:rule|use rule \w+ as) (\w+)", text, re.M))
    assert {"all", "train", "experiment_tables"} <= names
    assert names <= set(RULES)
