"""YAML files: what is read, and what is refused in one line."""

import pytest

from emm.errors import UserError
from emm.yamlfile import load_yaml


def load(tmp_path, text: str) -> dict:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_yaml(path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_empty_files(tmp_path, text):
    assert load(tmp_path, text) == {}


def test_content(tmp_path):
    text = "a: [1, 1.0e-4, 1e-4, true, 'true', null]\nb: {c.d: é}\n"
    assert load(tmp_path, text) == {"a": [1, 1e-4, "1e-4", True, "true", None], "b": {"c.d": "é"}}


def test_merged_keys_may_be_replaced(tmp_path):
    text = """
a: {b: &b {x: 1, y: 1}, c: &c {<<: *b, y: 2}, d: {e: &e {<<: *c, x: 3}}}
f: {<<: *e, y: 4}
g: *e
"""
    content = load(tmp_path, text)
    assert content["a"]["c"] == {"x": 1, "y": 2}
    assert content["g"] == content["a"]["d"]["e"] == {"x": 3, "y": 2}
    assert content["f"] == {"x": 3, "y": 4}


def test_a_value_may_contain_itself(tmp_path):
    content = load(tmp_path, "a: &a {b: *a}\n")
    assert content["a"]["b"] is content["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", " line 2: not valid YAML (did not find expected ',' or ']')"),
        ("a: 1\n b: 2\n", " line 2: not valid YAML (mapping values are not allowed"),
        ("a: 1\nb: 2\na: 3\n", " line 3: not valid YAML (the key 'a' stands twice)"),
        ("x:\n- {f: 1, g: 2, f: 1}\n", " line 2: not valid YAML (the key 'f' stands twice)"),
        ("a: !!python/object:os.system x", " line 1: not valid YAML (could not determine a con"),
        ("a: *b", " line 1: not valid YAML (found undefined alias)"),
        ("a: \x00", ": not valid YAML ("),
        ("a: 1\n---\nb: 2\n", " line 2: not valid YAML (but found another document)"),
        ("[1, 2]", ": holds no keys and values, but [1, 2]"),
        ("text", ": holds no keys and values, but 'text'"),
    ],
)
def test_malformed_files(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}{message}")
    assert "\n" not in str(caught.value)


def test_what_is_no_text_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: no such file$"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)$"):
        load_yaml(tmp_path)
    path = tmp_path / "image.yaml"
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(UserError, match=r"image\.yaml: not a text file in UTF-8$"):
        load_yaml(path)
