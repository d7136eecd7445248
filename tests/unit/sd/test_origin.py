"""Where base models come from, and models that are not the recorded one."""

import shutil
from pathlib import Path

import pytest

from emm.errors import UserError
from emm.sd.origin import BLOCK, BLOCKS, find_again, find_base, fingerprint

NAME = "somebody/model"
OLD, NEW = "a" * 40, "b" * 40  # commits


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def hub(folder, tmp_path, monkeypatch) -> Path:
    """The cache of a hub whose model has moved on from OLD to NEW; both are downloaded."""
    cache = tmp_path / "hub"
    model = cache / "models--somebody--model"
    for commit in (OLD, NEW):
        shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(OLD)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return model


def test_a_folder_is_found_by_its_path(copy, tmp_path):
    found = find_base(str(copy), tmp_path)
    assert found.record == {"folder": str(copy), "fingerprint": fingerprint(copy)}
    copy.rename(tmp_path / "base")
    assert find_base("tiny", tmp_path).folder == tmp_path / "base"


@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing@abc123", "./no/such/folder"])
def test_what_is_neither_here_nor_downloaded(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        find_base(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"model.base {name}: neither a folder nor to be had from the hub (")
    assert message.endswith("(docs/stable-diffusion.md)")
    assert "\n" not in message


def test_a_model_of_the_hub_is_had_at_the_recorded_commit(hub, tmp_path):
    recorded = find_base(NAME, tmp_path).record
    assert recorded == {"folder": str(hub / "snapshots" / OLD), "revision": OLD}
    (hub / "refs" / "main").write_text(NEW)
    assert find_base(NAME, tmp_path).mark == NEW
    for name in (NAME, f"{NAME}@main"):
        assert find_again(name, tmp_path, recorded).folder == hub / "snapshots" / OLD
    shutil.rmtree(hub / "snapshots" / OLD)
    with pytest.raises(UserError, match=f"model.base {NAME}@{OLD}: neither a folder nor"):
        find_again(NAME, tmp_path, recorded)


def test_a_folder_that_bears_the_name_of_a_model_of_the_hub(hub, folder, tmp_path, monkeypatch):
    recorded = find_base(NAME, tmp_path).record
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, NAME)
    with pytest.raises(
        UserError, match=rf"is not what the run was .* \(revision {OLD}\)"
    ) as caught:
        find_again(NAME, tmp_path, recorded)
    assert "\n" not in str(caught.value)


def test_a_folder_that_has_moved_or_changed(copy, tmp_path):
    recorded = find_base(str(copy), tmp_path).record
    copy.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert find_again(str(moved), tmp_path, recorded).folder == moved
    (moved / "scheduler" / "scheduler_config.json").write_text("{}")
    message = rf"model.base {moved}: .* is not what the run .* {recorded['fingerprint']}\); restore"
    with pytest.raises(UserError, match=message) as caught:
        find_again(str(moved), tmp_path, recorded)
    assert "\n" not in str(caught.value)
    assert find_again(str(moved), tmp_path, str(moved)).folder == moved  # as old records say it


def test_weights_of_the_same_size_have_another_fingerprint(copy):
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    before, content = fingerprint(copy), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert fingerprint(copy) != before


def test_large_files_are_read_in_places(copy):
    large = copy / "unet" / "weights.bin"
    content = bytearray(4 * BLOCKS * BLOCK)
    large.write_bytes(content)
    before = fingerprint(copy)
    content[-3 * BLOCK] = 1  # between two places
    large.write_bytes(content)
    assert fingerprint(copy) == before
    content[8 * BLOCK] = 1
    large.write_bytes(content)
    assert fingerprint(copy) != before


def test_what_is_never_loaded_does_not_count(copy):
    before = fingerprint(copy)
    (copy / "unet" / "model.fp16.safetensors").write_text("another copy")
    (copy / "unet" / ".cache").write_text("hidden")
    (copy / "README.md").write_text("beside the parts")
    assert fingerprint(copy) == before
    (copy / "vae" / "config2.json").write_text("{}")
    assert fingerprint(copy) != before
