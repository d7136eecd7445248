"""Weights that others trained: every format, bit for bit, and files that are refused."""

import collections
import contextlib
import io
import json
import os
import pickle
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from emm import nets
from emm.errors import UserError
from emm.nets import ARCHITECTURES, IDDPMUNet, UNet, load_published, read_weights
from emm.nets.pickled import _Reader, read_pickle
from emm.nets.published import from_edm_state_dict

GOLDEN = Path(__file__).parents[2] / "golden"


def golden(name: str) -> tuple[dict, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Configuration, published state dict, and inputs and outputs of a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as archive:
        config = json.loads(archive.metadata()["config"])
        tensors = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118
    state = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(("param.", "buff"))}
    return config, state, tensors


def unet(config: dict) -> UNet:
    arch = "ncsnpp" if config["encoder_type"] == "residual" else "ddpmpp"
    return UNet(
        resolution=config["img_resolution"],
        channels=config["channels"],
        channel_mult=config["channel_mult"],
        num_blocks=config["num_blocks"],
        attention_levels=(config["attention_level"],),
        time_embedding=config["embedding_type"],
        label_dim=config["label_dim"],
        skip_mask=config["skip_mask"],
        **ARCHITECTURES[arch],
    )


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """The state dict of a small network of EDM's code."""
    return golden("ddpmpp_vp")[1]


def assert_same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", ["ddpmpp_vp", "ddpmpp_edm_labels10", "ncsnpp_ve"])
def test_a_pickle_gives_the_network_that_its_tensors_give(tmp_path, edm_pickle, name):
    config, state, tensors = golden(name)
    weights = read_weights(edm_pickle(tmp_path / "network-snapshot-002500.pkl", state))
    assert_same(weights.tensors, {f"model.{name}": tensor for name, tensor in state.items()})
    network, direct = unet(config).eval(), unet(config)
    assert load_published(network, weights.tensors) == []
    direct.load_state_dict(from_edm_state_dict(state, direct))
    assert_same(network.state_dict(), direct.state_dict())
    with torch.no_grad():
        labels = tensors.get("input.labels")
        output = network(tensors["network.input"], tensors["network.c_noise"], labels)
    expected = tensors["network.output"]
    assert (output - expected).abs().max() < 1e-5 * expected.abs().max()


def test_what_a_pickle_says_of_itself(tmp_path, edm_pickle, state):
    weights = read_weights(edm_pickle(tmp_path / "a.pkl", state, "VPPrecond", beta_d=19.9))
    assert weights.kind == "VPPrecond"
    assert weights.constants["beta_d"] == 19.9
    assert weights.constants["img_resolution"] == 32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_that_of_the_network(tmp_path, edm_pickle, dtype):
    config, state, _ = golden("ddpmpp_vp")
    stored = {name: tensor.to(dtype) for name, tensor in state.items()}
    network, single = unet(config), unet(config)
    load_published(network, read_weights(edm_pickle(tmp_path / "a.pkl", stored)).tensors)
    load_published(single, {name: tensor.float() for name, tensor in stored.items()})
    assert_same(network.state_dict(), single.state_dict())
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


def test_tensors_that_share_or_stride_a_storage(tmp_path, edm_pickle):
    whole = torch.arange(24.0).view(4, 6)
    views = {"a.weight": whole, "b.weight": whole.t(), "c.weight": whole[1:3, ::2]}
    weights = read_weights(edm_pickle(tmp_path / "a.pkl", views))
    assert_same(weights.tensors, {f"model.{name}": tensor for name, tensor in views.items()})


def test_the_input_of_augmentations_is_left_out_and_named(tmp_path, edm_pickle):
    config, state, _ = golden("ddpmpp_vp")
    network, plain = unet(config), unet(config)
    load_published(plain, state)
    augmented = state | {"map_augment.weight": torch.ones(16, 9)}
    weights = read_weights(edm_pickle(tmp_path / "a.pkl", augmented))
    assert load_published(network, weights.tensors) == ["map_augment.weight"]
    assert_same(network.state_dict(), plain.state_dict())


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "legacy"])
@pytest.mark.parametrize("name", ["iddpm_uncond", "ddpmpp_vp"])
def test_state_dicts_in_files_of_torch_and_safetensors(tmp_path, name, suffix):
    _, state, _ = golden(name)
    path = tmp_path / f"ema_0.9999_001000.{suffix}"
    if suffix == "safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == "pt")
    weights = read_weights(path)
    assert weights.kind == ""
    assert_same(weights.tensors, state)


def test_a_network_of_improved_diffusion(tmp_path):
    config, state, tensors = golden("iddpm_uncond")
    torch.save(state, tmp_path / "ema.pt")
    network = IDDPMUNet(
        resolution=config["image_size"],
        channels=config["channels"],
        channel_mult=config["channel_mult"],
        num_blocks=config["num_res_blocks"],
        attention_levels=[
            (config["image_size"] // pixels).bit_length()
            for pixels in config["attention_resolutions"]
        ],
        heads=config["num_heads"],
        learned_variance=config["learn_sigma"],
    ).eval()
    load_published(network, read_weights(tmp_path / "ema.pt").tensors)
    with torch.no_grad():
        output = network(tensors["input.x"], tensors["input.time"])
    expected = tensors["network.output"]
    assert (output - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_state_dict_with_our_own_names(tmp_path):
    config, state, _ = golden("ncsnpp_ve")
    network, other = unet(config), unet(config)
    load_published(network, state)
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    load_published(other, read_weights(tmp_path / "own.safetensors").tensors)
    assert_same(other.state_dict(), network.state_dict())
    wrong = network.state_dict() | {"stem.bias": torch.zeros(3)}
    with pytest.raises(UserError, match=r"tensor stem.bias has shape \(3,\)"):
        load_published(other, wrong)


@pytest.mark.parametrize("key", ["ema", "model", "state_dict"])
def test_one_entry_of_several(tmp_path, state, key):
    torch.save({key: state, "step": 5, "optimizer": {"lr": 0.1}}, tmp_path / "a.pt")
    assert_same(read_weights(tmp_path / "a.pt").tensors, state)


class Payload:
    """Runs a command when it is unpickled by pickle itself."""

    def __init__(self, call, *given):
        self.call, self.given = call, given

    def __reduce__(self):
        return self.call, self.given


PAYLOADS = {
    "posix.system": Payload(os.system, "touch was_run"),
    "subprocess.Popen": Payload(subprocess.Popen, ["touch", "was_run"]),
    "builtins.exec": Payload(exec, "open('was_run', 'w')"),
    "builtins.eval": Payload(eval, "open('was_run', 'w')"),
    "builtins.getattr": Payload(getattr, "text", "upper"),
    "io.open": Payload(io.open, "was_run", "w"),
    "collections.Counter": collections.Counter("ab"),
}


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("place", ["beside", "inside", "instead"])
def test_a_file_that_names_anything_else_is_refused(
    tmp_path, monkeypatch, edm_pickle, state, name, place
):
    """Before anything of it runs, and by the name."""
    monkeypatch.chdir(tmp_path)
    path, payload = tmp_path / "a.pkl", PAYLOADS[name]
    if place == "instead":
        path.write_bytes(pickle.dumps(payload))
    elif place == "beside":
        edm_pickle(path, state, extra={"payload": payload})
    else:
        edm_pickle(path, state, hidden=[payload])
    with pytest.raises(UserError) as refusal:
        read_weights(path)
    assert str(refusal.value).startswith(f"{path}: refused: it names {name}")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("name", [name for name in PAYLOADS if "Counter" not in name])
def test_a_file_of_torch_that_names_anything_else_is_refused(tmp_path, monkeypatch, state, name):
    """Its pickles have the names of Python 2; counters it may hold."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state, "other": PAYLOADS[name]}, tmp_path / "a.pt")
    last = name.rpartition(".")[2]
    with pytest.raises(UserError, match=rf"a.pt: refused: it names (\w+\.)?{last}, which") as error:
        read_weights(tmp_path / "a.pt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"cos\nsystem\n(S'touch was_run'\ntR.",
        b"(S'touch was_run'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\rtouch was_run\x85R.",
    ],
    ids=["GLOBAL", "INST", "STACK_GLOBAL"],
)
def test_names_are_refused_in_every_way_of_writing_them(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pkl"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"refused: it names os.system"):
        read_weights(path)
    assert not (tmp_path / "was_run").exists()


def test_a_storage_is_not_unpickled_either(tmp_path, monkeypatch):
    """What torch.storage._load_from_bytes would load is a pickle of its own."""
    monkeypatch.chdir(tmp_path)
    inner = io.BytesIO()
    torch.save(PAYLOADS["posix.system"], inner, _use_new_zipfile_serialization=False)
    load = Payload(torch.storage._load_from_bytes, inner.getvalue())
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": {"weight": load}}))
    with pytest.raises(UserError, match=r"a.pkl: damaged.*posix.system"):
        read_weights(tmp_path / "a.pkl")
    assert not (tmp_path / "was_run").exists()


def test_the_source_in_a_pickle_is_not_run(tmp_path, monkeypatch, edm_pickle, state):
    monkeypatch.chdir(tmp_path)
    path = edm_pickle(tmp_path / "a.pkl", state)
    assert b"source_was_run" in path.read_bytes()
    read_weights(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pkl"]


@pytest.mark.parametrize(
    "name",
    [
        b"torch.nn.modules.linear\nLinear",
        b"torch._utils\n_rebuild_parameter",
        b"collections\nOrderedDict",
    ],
)
def test_a_file_that_writes_to_a_stand_in_leaves_no_trace_in_the_next(tmp_path, state, name):
    """BUILD with (None, {"kind": "bad"}) sets attributes of what GLOBAL gave."""
    path = tmp_path / "a.pkl"
    path.write_bytes(b"c" + name + b"\n(N}\x8c\x04kind\x8c\x03badstb.")
    with contextlib.suppress(UserError):
        read_pickle(path)
    path.write_bytes(pickle.dumps(torch.nn.Linear(2, 2)))
    assert read_weights(path).kind == "Linear"
    with path.open("rb") as stream:
        module, _, last = name.decode().partition("\n")
        fresh = _Reader(stream, path).find_class(module, last)
    assert getattr(fresh, "kind", None) != "bad"


def rebuilt(size: tuple, stride: tuple, offset: int = 0, elements: int = 6) -> Payload:
    """A tensor as a pickle has it: half precision, over a storage of its own."""
    storage = Payload(torch.storage._load_from_bytes, _bytes(torch.arange(elements).half()))
    given = (storage, offset, size, stride, False, {})
    return Payload(torch._utils._rebuild_tensor_v2, *given)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((100,), (1,), 0),
        ((2, 50), (1, 1), 0),
        ((2**40,), (1,), 0),
        ((6,), (1,), 1),  # ends beyond the storage
        ((2, 3), (4, 1), 0),
        ((1,), (1,), 6),
        ((2**45,), (0,), 0),  # lies in the storage, again and again
        ((7, 1), (0, 1), 0),
        ((4, 2), (1, 1), 0),
        ((2**32, 2**32), (0, 0), 0),
        ((2,) * 9, (0,) * 9, 0),
        ((3,), (1, 1), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 3),
        ((2.0,), (1,), 0),
        ((0, 2**80), (1, 1), 0),
    ],
)
def test_a_tensor_larger_than_its_storage_is_refused(tmp_path, size, stride, offset):
    """By its number of elements too, before anything is made of it."""
    content = {"ema": {"weight": rebuilt(size, stride, offset)}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"a.pkl: damaged") as error:
        read_weights(tmp_path / "a.pkl")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "stride", "offset", "values"),
    [
        ((), (), 5, 5),
        ((2, 3), (3, 1), 0, [[0, 1, 2], [3, 4, 5]]),
        ((2, 2), (1, 2), 2, [[2, 4], [3, 5]]),
        ((1, 6), (99, 1), 0, [[0, 1, 2, 3, 4, 5]]),
        ((2, 3), (1, 1), 0, [[0, 1, 2], [1, 2, 3]]),
        ((0, 100), (100, 1), 6, []),
    ],
)
def test_a_tensor_that_just_fits_its_storage(tmp_path, size, stride, offset, values):
    content = {"ema": {"weight": rebuilt(size, stride, offset)}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    weight = read_weights(tmp_path / "a.pkl").tensors["weight"]
    assert torch.equal(weight, torch.tensor(values).half().view(size))


def test_a_storage_is_no_tensor_that_repeats_itself(tmp_path):
    inner = io.BytesIO()
    torch.save(torch.zeros(1).half().expand(2**45), inner)
    load = Payload(torch.storage._load_from_bytes, inner.getvalue())
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": {"weight": load}}))
    with pytest.raises(UserError, match=r"a.pkl: damaged.*a storage is a Tensor"):
        read_weights(tmp_path / "a.pkl")


class Stated(Payload):
    """Has a state besides, which pickle gives to what the call returned."""

    def __init__(self, state, call, *given):
        super().__init__(call, *given)
        self.state = state

    def __reduce__(self):
        return self.call, self.given, self.state


def test_a_tensor_takes_no_state_that_makes_it_larger(tmp_path):
    """A tensor of torch would: its state of four is a storage, an offset, sizes and strides."""
    plain = rebuilt((6,), (1,))
    larger = Stated((rebuilt((6,), (1,)), 0, (2**45,), (0,)), plain.call, *plain.given)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": {"weight": larger}}))
    assert read_weights(tmp_path / "a.pkl").tensors["weight"].shape == (6,)


@pytest.mark.parametrize("suffix", ["pt", "legacy"])
def test_a_large_view_of_little_is_refused_by_its_shape(tmp_path, suffix):
    """2^45 values of one stored number, which float32 would not fit anywhere."""
    config, state, _ = golden("ddpmpp_vp")
    state = state | {"map_layer0.bias": torch.zeros(1).half().expand(2**45)}
    path = tmp_path / f"a.{suffix}"
    torch.save(state, path, _use_new_zipfile_serialization=suffix == "pt")
    with pytest.raises(UserError, match=r"tensor map_layer0.bias has shape \(35184372088832,\)"):
        load_published(unet(config), read_weights(path).tensors)


def test_tensors_without_plain_values_are_one_line():
    config, state, _ = golden("ddpmpp_vp")
    state = state | {"map_layer0.bias": state["map_layer0.bias"].to("meta")}
    with pytest.raises(
        UserError, match=r"published weights: cannot be loaded \(.*mapping"
    ) as error:
        load_published(unet(config), state)
    assert "\n" not in str(error.value)


def _bytes(tensor: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    storage = torch.storage.TypedStorage(
        wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True
    )
    torch.save(storage, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", ["pkl", "pt", "safetensors"])
@pytest.mark.parametrize("cut", [0, 3, 40, -20])
def test_a_file_that_is_cut_off_is_one_line(tmp_path, edm_pickle, state, suffix, cut):
    path = tmp_path / f"a.{suffix}"
    if suffix == "pkl":
        edm_pickle(path, state)
    elif suffix == "pt":
        torch.save(state, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=rf"a.{suffix}: damaged, or ") as error:
        read_weights(path)
    assert "\n" not in str(error.value)


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match=r"a.pkl: no such file"):
        read_weights(tmp_path / "a.pkl")
    with pytest.raises(UserError, match=r"cannot be read"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", [{}, [], {"ema": {}}, {"ema": {"weight": 3}}, "text"])
def test_a_file_without_a_network(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"a.pkl: holds no network; it should be a state dict"):
        read_weights(tmp_path / "a.pkl")


def test_a_module_without_tensors(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": torch.nn.SiLU()}))
    with pytest.raises(UserError, match=r"a.pkl: its SiLU holds no tensors"):
        read_weights(tmp_path / "a.pkl")


def test_a_module_that_holds_itself(tmp_path):
    module = torch.nn.Linear(2, 2)
    module._modules["again"] = module
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": module}))
    assert_same(read_weights(tmp_path / "a.pkl").tensors, dict(module.named_parameters()))


def test_modules_that_share_modules_are_walked_once(tmp_path):
    """40 modules that name the next twice have 2^40 paths."""
    module = torch.nn.Linear(1, 1)
    for _ in range(40):
        module = torch.nn.ModuleDict({"a": module, "b": module})
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": module}))
    found = read_weights(tmp_path / "a.pkl").tensors
    assert set(found) == {"a." * 40 + "weight", "a." * 40 + "bias"}


def test_modules_far_within_modules(tmp_path):
    """Deeper than pickle itself writes, or any network is."""
    module = b"ctorch.nn.modules.linear\nLinear\n)\x81"
    inward = module + b"}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00a"
    text = b"}X\x03\x00\x00\x00ema" + inward * 2000 + module + b"ssb" * 2000 + b"s."
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + text)
    with pytest.raises(UserError, match=r"a.pkl: damaged: its Linear is no module"):
        read_weights(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "attributes",
    [
        {"_modules": 3},
        {"_parameters": [1]},
        {"_parameters": {"weight": rebuilt((6,), (1,))}, "_non_persistent_buffers_set": 3},
        {"_parameters": {3: rebuilt((6,), (1,))}},
        {"_parameters": {"a" * 161: rebuilt((6,), (1,))}},
        {"_parameters": {"weight": rebuilt((6,), (1,))}, "scale": 10**400},
    ],
)
def test_modules_with_other_attributes_than_modules_have(tmp_path, attributes):
    module = torch.nn.SiLU()
    vars(module).update(attributes)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": module}))
    with pytest.raises(UserError, match=r"a.pkl: damaged: its SiLU is no module$"):
        read_weights(tmp_path / "a.pkl")


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, OverflowError])
def test_what_torch_has_no_memory_for_is_one_line(tmp_path, monkeypatch, error):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": torch.nn.Linear(2, 2)}))
    monkeypatch.setattr(torch.Tensor, "detach", Mock(side_effect=error("one\ntwo")))
    with pytest.raises(UserError, match=r"a.pkl: damaged: its Linear is no module$"):
        read_weights(tmp_path / "a.pkl")


HOSTILE = "\x1b[2J\x1b]0;title\x07\nerror: \r\x9b\x7f\u202e" + "a" * 100_000


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_weights(path)
    return str(error.value)


def assert_plain(message: str, folder: Path) -> None:
    """One line of printable ASCII, and not a long one."""
    assert message.startswith(f"{folder}/a.")
    assert message.isascii()
    assert message.isprintable()
    assert len(message) - len(str(folder)) < 400


def unicode(text: str) -> bytes:
    """A text as pickle writes it."""
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


@pytest.mark.parametrize("text", [HOSTILE, "os\nsystem", "\udc9b", "torch.nn.modules.\x1b.c"])
def test_messages_show_the_names_of_a_file_as_plain_text(tmp_path, text):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + unicode(text) + unicode(text) + b"\x93.")
    message = refused(path)
    assert_plain(message, tmp_path)
    assert "refused: it names " in message


@pytest.mark.parametrize("kind", [HOSTILE, f"{HOSTILE}Precond"])
def test_messages_show_the_kind_of_a_module_as_plain_text(tmp_path, edm_pickle, kind):
    path = edm_pickle(tmp_path / "a.pkl", {"weight": torch.zeros(2)}, kind)
    found = read_weights(path).kind
    assert_plain(f"{tmp_path}/a.pkl: {found}", tmp_path)
    assert found.startswith(r"\x1b[2J")


@pytest.mark.parametrize("suffix", ["pkl", "pt", "safetensors"])
@pytest.mark.parametrize("name", [HOSTILE, "map_augment.\x1b[2J", "map augment", ""])
def test_names_of_tensors_that_no_line_can_show_are_refused(tmp_path, suffix, name):
    path, tensors = tmp_path / f"a.{suffix}", {"weight": torch.zeros(2), name: torch.ones(2)}
    if suffix == "safetensors":
        save_file(tensors, path)
    elif suffix == "pt":
        torch.save(tensors, path)
    else:
        values = {key: rebuilt((2,), (1,)) for key in tensors}
        path.write_bytes(pickle.dumps(values))
    message = refused(path)
    assert_plain(message, tmp_path)
    assert "damaged: a tensor has the name" in message


def test_messages_of_torch_show_names_as_plain_text(tmp_path):
    content, path = {"other": PAYLOADS["posix.system"]}, tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"system", b"sy\x1btem"))
    message = refused(path)
    assert_plain(message, tmp_path)
    assert r"sy\x1btem, which is no tensor" in message


def test_the_public_functions_are_those_of_the_package():
    assert {"load_published", "read_weights"} <= set(nets.__all__)
