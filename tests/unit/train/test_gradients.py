"""The gradient of a batch in parts, which short memory asks for, and other errors."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from emm.diffusion.precondition import Denoiser
from emm.errors import UserError
from emm.nets.dropout import share_dropout
from emm.train.device import as_tensors, build_denoiser
from emm.train.flat import FlatParameters
from emm.train.gradients import Batch, Gradients
from emm.train.state import initial_state
from emm.train.step import Step
from emm.train.team import Team

CPU = torch.device("cpu")
SEED = 11
CUDA_SHORT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1")
SHORTAGES = [
    CUDA_SHORT,
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


class Short:
    """Losses of batches above a number of images raise an error, from the n-th loss on."""

    def __init__(self, patch: pytest.MonkeyPatch, limit: int, error: Exception, after: int = 0):
        self.limit, self.error, self.after = limit, error, after
        self.sizes: list[int] = []
        original = Denoiser.loss

        def loss(denoiser: Denoiser, images: Tensor, *others: Tensor | None) -> Tensor:
            if len(images) > self.limit and len(self.sizes) >= self.after:
                raise self.error
            self.sizes.append(len(images))
            return original(denoiser, images, *others)

        patch.setattr(Denoiser, "loss", loss)


@pytest.fixture
def whole(case) -> Callable[..., tuple[Denoiser, FlatParameters, Batch]]:
    """A denoiser in training and a batch: whole(images, **settings)."""

    def make(count: int, **settings) -> tuple[Denoiser, FlatParameters, Batch]:
        tiny = case(1, labels="true", train__batch_size=count, **settings)
        denoiser = build_denoiser(tiny.recipe, tiny.subset, CPU)
        state = initial_state(denoiser.network, tiny.plan)
        batch = Step(denoiser, *as_tensors(tiny.subset, CPU), tiny.plan, state).batch(3)
        denoiser.train()
        generator = torch.Generator().manual_seed(1)
        state.flat.values.add_(torch.randn(state.flat.values.shape, generator=generator), alpha=0.1)
        return denoiser, state.flat, batch

    return make


def in_parts(
    denoiser: Denoiser, flat: FlatParameters, batch: Batch, parts: int, team: Team | None = None
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the rows of a process, or of all."""
    rows = slice(0, len(batch)) if team is None else team.part(len(batch))
    gradients = Gradients(denoiser, flat, len(batch), rows)
    gradients.parts = parts
    loss, gradient = gradients(batch[rows], SEED)
    assert gradients.parts == parts
    return loss.clone(), gradient.clone()


def expected_of(denoiser: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
    """Loss and gradient as torch has them."""
    share_dropout(denoiser.network, len(batch), slice(0, len(batch)))
    torch.manual_seed(SEED)
    loss = denoiser.loss(batch.images, batch.labels, batch.noise, batch.level)
    parts = torch.autograd.grad(loss, list(denoiser.network.parameters()))
    return loss.detach(), torch.cat([part.reshape(-1) for part in parts])


def assert_near(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=0)
    assert (found[1] - expected[1]).norm() < 1e-5 * expected[1].norm()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
def test_parts_add_up_to_the_whole(whole, parts, dropout):
    """Also parts of uneven size, with the masks of the whole batch."""
    denoiser, flat, batch = whole(7, model__dropout=dropout)
    assert_near(in_parts(denoiser, flat, batch, parts), expected_of(denoiser, batch))


def test_masks_matter(whole):
    """What the test above could not tell: gradients with other masks are far away."""
    denoiser, flat, batch = whole(7, model__dropout=0.4)
    _, gradient = expected_of(denoiser, batch)
    _, other = Gradients(denoiser, flat, 7, slice(0, 7))(batch, SEED + 1)
    assert (other - gradient).norm() > 0.1 * gradient.norm()


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3])
def test_parts_of_processes_add_up_to_the_whole(whole, size, parts):
    denoiser, flat, batch = whole(10, model__dropout=0.4)
    shares = [in_parts(denoiser, flat, batch, parts, Team(rank, size)) for rank in range(size)]
    loss, gradient = (sum(tensors) for tensors in zip(*shares, strict=True))
    assert_near((loss, gradient), expected_of(denoiser, batch))


def test_the_gradient_is_scaled_and_the_loss_is_not(whole):
    denoiser, flat, batch = whole(7)
    for parts in (1, 3):
        gradients = Gradients(denoiser, flat, 7, slice(0, 7), scale=64.0)
        gradients.parts = parts
        loss, gradient = gradients(batch, SEED)
        assert_near((loss, gradient / 64), expected_of(denoiser, batch))


@pytest.mark.parametrize("error", SHORTAGES, ids=range(len(SHORTAGES)))
def test_a_batch_is_halved_until_it_fits(whole, monkeypatch, capfd, error):
    denoiser, flat, batch = whole(7)
    expected = expected_of(denoiser, batch)
    short = Short(monkeypatch, 2, error)
    gradients = Gradients(denoiser, flat, 7, slice(0, 7))
    assert_near(gradients(batch, SEED), expected)
    assert_near(gradients(batch, SEED), expected)
    assert short.sizes == 2 * [1, 2, 2, 2]
    said = [f"memory is short: batches in {parts} parts" for parts in (2, 4)]
    assert capfd.readouterr().err.splitlines() == said


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_single_images_are_tried_last(whole, monkeypatch, capfd, count):
    """Also where the number of images is no power of two."""
    denoiser, flat, batch = whole(count)
    expected = expected_of(denoiser, batch)
    short = Short(monkeypatch, 1, CUDA_SHORT)
    assert_near(Gradients(denoiser, flat, count, slice(0, count))(batch, SEED), expected)
    assert short.sizes[-count:] == [1] * count
    halvings = capfd.readouterr().err.splitlines()
    assert halvings[-1:] == [f"memory is short: batches in {count} parts"] * (count > 1)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_memory_for_no_image(whole, monkeypatch, count):
    denoiser, flat, batch = whole(count)
    Short(monkeypatch, 0, CUDA_SHORT)
    with pytest.raises(UserError) as caught:
        Gradients(denoiser, flat, count, slice(0, count))(batch, SEED)
    assert str(caught.value) == (
        "memory does not suffice for a single image: CUDA out of memory. Tried to allocate "
        "2.00 GiB. GPU 0 has 1; make the network smaller or take a larger GPU"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes cannot be multiplied"), ValueError("out of memory")]
)
def test_other_errors_are_no_shortage(whole, monkeypatch, capfd, error):
    denoiser, flat, batch = whole(4)
    Short(monkeypatch, 2, error)
    gradients = Gradients(denoiser, flat, 4, slice(0, 4))
    with pytest.raises(type(error), match=str(error)):
        gradients(batch, SEED)
    assert gradients.parts == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("after", [0, 5])
def test_a_training_with_little_memory(tmp_path, case, monkeypatch, capfd, after):
    """Ends where one with enough memory does, up to rounding; also if it falls short later."""
    tiny = case(12, model__channels=8, model__dropout=0.3, train__batch_size=8)
    start = FlatParameters(build_denoiser(tiny.recipe, tiny.subset, CPU).network).values
    expected = tiny.run(tmp_path / "enough")
    Short(monkeypatch, 3, CUDA_SHORT, after)
    found = tiny.run(tmp_path / "short")
    said = [f"memory is short: batches in {parts} parts" for parts in (2, 4)]
    assert capfd.readouterr().err.splitlines() == said
    moved = (expected.flat.values - start).norm()
    assert moved > 0
    assert 0 < (found.flat.values - expected.flat.values).norm() < 3e-3 * moved
    rows = [np.array(state.metrics)[:, 2] for state in (found, expected)]
    np.testing.assert_allclose(*rows, rtol=1e-4)


def test_a_training_without_memory(tmp_path, case, monkeypatch):
    Short(monkeypatch, 0, CUDA_SHORT)
    with pytest.raises(UserError, match="memory does not suffice for a single image"):
        case(2).run(tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
