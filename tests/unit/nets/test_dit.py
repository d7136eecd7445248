"""The diffusion transformer: an independent float64 form, published sizes, windows, symmetries."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from emm import nets
from emm.errors import UserError
from emm.nets.cost import forward_flops, layers, parameters
from emm.nets.dit import DiT, TransformerBlock, neighbourhood, positions


def tiny(seed: int = 0, **settings) -> DiT:
    """A network with random weights everywhere: a fresh one returns zeros."""
    torch.manual_seed(seed)
    shape = {"resolution": 8, "image_channels": 3, "channels": 16, "depth": 2, "heads": 2}
    network = DiT(**shape | {"dropout": 0.0} | settings)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return network.double().eval()


def batch(network: DiT, size: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    shape = (size, network.image_channels, network.resolution, network.resolution)
    return torch.randn(shape, dtype=torch.float64), torch.rand(size, dtype=torch.float64) * 900


def plain_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def plain_attention(x: Tensor, weights: dict[str, Tensor], heads: int, window: int | None, side):
    """Token by token, head by head."""
    width = x.shape[-1] // heads
    query, key, value = (x @ weights["qkv.weight"].T + weights["qkv.bias"]).chunk(3, dim=-1)
    mixed = torch.zeros_like(x)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for token in range(x.shape[0]):
            others = [
                other
                for other in range(x.shape[0])
                if window is None
                or max(abs(other // side - token // side), abs(other % side - token % side))
                <= window // 2
            ]
            logits = key[others, own] @ query[token, own] / width**0.5
            mixed[token, own] = torch.softmax(logits, 0) @ value[others, own]
    return mixed @ weights["projection.weight"].T + weights["projection.bias"]


def plain_block(x: Tensor, weights: dict[str, Tensor], embedding: Tensor, heads, window, side):
    parts = (weights["modulation.weight"] @ embedding + weights["modulation.bias"]).view(6, -1)
    shift_in, scale_in, gate_in, shift_out, scale_out, gate_out = parts
    attended = plain_norm(x) * (1 + scale_in) + shift_in
    x = x + gate_in * plain_attention(attended, weights, heads, window, side)
    hidden = plain_norm(x) * (1 + scale_out) + shift_out
    hidden = hidden @ weights["hidden.weight"].T + weights["hidden.bias"]
    cube = (2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)
    hidden = 0.5 * hidden * (1 + torch.tanh(cube))
    return x + gate_out * (hidden @ weights["output.weight"].T + weights["output.bias"])


def plain_network(network: DiT, image: Tensor, embedding: Tensor, heads: int, window) -> Tensor:
    """Output for one image (C, H, W), from the weights alone."""
    state, patch = network.state_dict(), network.patch
    side = network.resolution // patch
    grid = [(row, column) for row in range(side) for column in range(side)]
    cut = [image[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] for r, c in grid]
    stem = state["stem.weight"].flatten(1)
    x = torch.stack([stem @ part.flatten() + state["stem.bias"] for part in cut])
    quarter = x.shape[1] // 4
    for token, place in enumerate(grid):
        angles = [
            torch.tensor([along / 10_000 ** (i / quarter) for i in range(quarter)]).double()
            for along in place
        ]
        x[token] += torch.cat([f for angle in angles for f in (angle.sin(), angle.cos())])
    for index in range(len(network.blocks)):
        prefix = f"blocks.{index}."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        x = plain_block(x, own, embedding, heads, window, side)
    shift, scale = (
        state["head.modulation.weight"] @ embedding + state["head.modulation.bias"]
    ).chunk(2)
    x = (plain_norm(x) * (1 + scale) + shift) @ state["head.output.weight"].T
    x = x + state["head.output.bias"]
    output = torch.empty_like(image)
    for (row, column), token in zip(grid, x, strict=True):
        part = token.view(-1, patch, patch)
        output[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = part
    return output


@pytest.mark.parametrize(
    ("patch", "window", "label_dim"), [(2, None, 0), (2, 3, 0), (4, None, 5), (1, 5, 5)]
)
def test_output_equals_that_of_a_plain_formulation(patch, window, label_dim):
    network = tiny(patch=patch, window=window, label_dim=label_dim)
    images, levels = batch(network, 2)
    labels = torch.tensor([4, 1]) if label_dim else None
    found = network(images, levels, labels)
    embedding = network.mapping(levels, labels)
    for index in range(2):
        expected = plain_network(network, images[index], embedding[index], 2, window)
        torch.testing.assert_close(found[index], expected, rtol=1e-6, atol=1e-6)


class Given(nn.Module):
    """The embedding of noise levels and labels, whatever they are."""

    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, *levels, **labels) -> Tensor:
        return self.embedding


def test_a_block_is_that_of_diffusers():
    """Its DiT block, of another code base, with the same weights."""
    attention = pytest.importorskip("diffusers.models.attention")
    theirs = attention.BasicTransformerBlock(
        16,
        2,
        8,
        num_embeds_ada_norm=5,
        attention_bias=True,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    ).eval()
    torch.manual_seed(0)
    ours = TransformerBlock(16, 2, 0.0).eval()
    for parameter in ours.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape)
    parts = zip(ours.qkv.weight.chunk(3), ours.qkv.bias.chunk(3), strict=True)
    for name, (weight, bias) in zip(("to_q", "to_k", "to_v"), parts, strict=True):
        getattr(theirs.attn1, name).load_state_dict({"weight": weight, "bias": bias})
    for layer, own in (
        (theirs.attn1.to_out[0], ours.projection),
        (theirs.ff.net[0].proj, ours.hidden),
        (theirs.ff.net[2], ours.output),
        (theirs.norm1.linear, ours.modulation),
    ):
        layer.load_state_dict(own.state_dict())
    tokens, embedding = torch.randn(2, 9, 16), torch.randn(2, 16)
    theirs.norm1.emb = Given(embedding)
    with torch.no_grad():
        expected = theirs(tokens, timestep=torch.zeros(2), class_labels=torch.zeros(2))
        found = ours(tokens, functional.silu(embedding))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def formula(width: int, depth: int, patch: int, channels: int, labels: int) -> int:
    """Parameters: 18 d^2 + 15 d per block, and what is around the blocks."""
    around = 2 * width * (width + 1) + width * (patch**2 * channels + 1)
    around += 2 * width * (width + 1) + (width + 1) * patch**2 * channels
    around += (labels + 1) * width if labels else 0
    return depth * (18 * width**2 + 15 * width) + around


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({}, 0),
        ({"channels": 32, "depth": 3, "heads": 2, "patch": 1}, 7),
        ({"channels": 48, "depth": 4, "heads": 4, "patch": 4, "image_channels": 1}, 0),
    ],
)
def test_parameters_follow_a_formula(settings, labels):
    with torch.device("meta"):
        network = DiT(resolution=32, label_dim=labels, **settings)
    shape = {"channels": 384, "depth": 12, "patch": 2, "image_channels": 3} | settings
    expected = formula(
        *(shape[k] for k in ("channels", "depth", "patch", "image_channels")), labels
    )
    assert parameters(network) == expected


def test_blocks_of_dit_s_have_the_published_size():
    """12 x (18 x 384^2 + 15 x 384) of the 33 million parameters of DiT-S/2."""
    with torch.device("meta"):
        network = DiT(resolution=32)
    assert sum(parameters(block) for block in network.blocks) == 31_919_616
    assert parameters(network) == 32_520_588


def test_operations_are_published_and_windows_are_masks():
    """6.06 billion multiply-adds per image of 256 tokens (Peebles and Xie 2023, Table 4)."""
    with torch.device("meta"):
        whole, local = (DiT(resolution=32, image_channels=4, window=w) for w in (None, 5))
    assert forward_flops(whole) / 2e9 == pytest.approx(6.06, abs=0.02)
    assert forward_flops(local) == forward_flops(whole)


def test_layers_are_in_order_and_add_up():
    network = tiny(label_dim=3)
    rows = layers(network)
    assert [row["name"] for row in rows] == ["mapping", "stem", "blocks.0", "blocks.1", "head"]
    assert [row["kind"] for row in rows] == ["mapping", "conv", "block", "block", "head"]
    assert [row["attention"] for row in rows] == [False, False, True, True, False]
    assert {row["skip"] for row in rows} == {None}
    assert rows[-1]["shape"] == [16, 12]
    assert sum(row["parameters"] for row in rows) == parameters(network)


def test_a_fresh_network_returns_zeros():
    network = DiT(resolution=8, channels=16, depth=1, heads=2)
    assert not network(torch.randn(2, 3, 8, 8), torch.tensor([0.0, 999.0])).any()


def test_tokens_see_a_square_around_them():
    seen = neighbourhood(4, 3)
    assert seen.shape == (16, 16)
    assert seen[5].nonzero().flatten().tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert seen[0].nonzero().flatten().tolist() == [0, 1, 4, 5]
    assert torch.equal(seen, seen.T)
    assert torch.equal(neighbourhood(4, 1), torch.eye(16, dtype=torch.bool))
    assert neighbourhood(4, 7).all()


def reach(network: DiT) -> Tensor:
    """Which input pixels decide the output pixel at the top left."""
    images, levels = batch(network, 1)
    images.requires_grad_()
    network(images, levels)[0, 0, 0, 0].backward()
    return images.grad[0].abs().sum(0) > 0


@pytest.mark.parametrize(("window", "pixels"), [(1, 2), (3, 6), (None, 8)])
def test_windows_limit_how_far_an_image_acts(window, pixels):
    """Two blocks of windows of 3 tokens: two tokens of two pixels beyond one's own."""
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:pixels, :pixels] = True
    assert torch.equal(reach(tiny(window=window)), expected)


def test_a_window_that_covers_all_is_no_window():
    images, levels = batch(tiny())
    torch.testing.assert_close(tiny(window=7)(images, levels), tiny()(images, levels))


def test_positions_are_distinct_and_of_rows_and_columns():
    found = positions(4, 16)
    assert found.shape == (16, 16)
    assert len(found.unique(dim=0)) == 16
    torch.testing.assert_close(found[1, :8], found[0, :8])  # same row
    torch.testing.assert_close(found[1, 8:], found[4, :8])  # a column on, like a row on


def test_dropout_acts_in_training_only():
    network = tiny(dropout=0.5)
    images, levels = batch(network)
    assert torch.equal(network(images, levels), network(images, levels))
    network.train()
    assert not torch.equal(network(images, levels), network(images, levels))


def test_labels_change_the_output_and_must_be_right():
    network = tiny(label_dim=3)
    images, levels = batch(network)
    first, second = (network(images, levels, torch.full((3,), label)) for label in (0, 2))
    assert not torch.allclose(first, second)
    with pytest.raises(UserError, match=r"needs labels \(label_dim 3\)"):
        network(images, levels)
    with pytest.raises(UserError, match="takes no labels"):
        tiny()(images, levels, torch.zeros(3, dtype=torch.int64))


def test_autocast_stays_near_and_keeps_the_embedding_in_fp32():
    network = tiny().float()
    images, levels = (x.float() for x in batch(network))
    seen = []
    network.mapping.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    full = network(images, levels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(images, levels)
    assert set(seen) == {torch.float32}
    assert (low.float() - full).square().mean().sqrt() < 0.03 * full.std()


def test_the_global_seed_decides_all_weights():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(DiT(resolution=8, channels=16, depth=1, heads=2).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["stem.weight"], states[2]["stem.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 18}, "model.channels 18: make it a multiple of model.heads 2 and of 4"),
        ({"heads": 3}, "model.channels 16: make it a multiple of model.heads 3 and of 4"),
        ({"patch": 3}, "model.patch 3: does not divide data.resolution 8"),
        ({"window": 4}, "model.window 4: use an odd number of tokens"),
    ],
)
def test_settings_that_do_not_fit_are_one_line_errors(settings, message):
    with pytest.raises(UserError) as caught:
        tiny(**settings)
    assert message in str(caught.value)


def test_build_takes_a_model_of_settings():
    model = SimpleNamespace(
        arch="dit",
        channels=16,
        depth=3,
        heads=2,
        patch=4,
        window=3,
        time_embedding="positional",
        fourier_scale=16.0,
        dropout=0.13,
    )
    network = nets.build(model, resolution=8, image_channels=1, label_dim=2, dropout=0.5)
    assert isinstance(network, DiT)
    assert (len(network.blocks), network.patch, network.label_dim) == (3, 4, 2)
    assert torch.equal(network.seen, neighbourhood(2, 3))
    assert network.blocks[0].dropout.rate == 0.5
