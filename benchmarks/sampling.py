"""Images per second of sampling against an eager loop in fp32 and against the rate of training."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from common import Goal, Options, Row, Target, compare, take_turns, without_gpu
from networks import PUBLISHED, flops_of_training, make
from reference import sample as sample_eagerly
from training import _our_steps, seconds

from emm.diffusion.precondition import karras_sigmas, to_uint8
from emm.diffusion.sampling import sample
from emm.spec import Recipe

NAME = "sampling, DDPM++ C=128 n=2, 32x32, 35 evaluations"
AGAINST = "an eager loop in fp32"
LIMIT = "time of the forward passes alone, at the rate that training reaches"
BATCH, FEW, MANY = 500, 500, 2000
GOALS = (
    Goal("cuda", NAME, AGAINST, Target("at least", 5)),
    Goal("cuda", NAME, LIMIT, Target("at most", 1.3)),
)


def rows(options: Options) -> Iterator[Row]:
    """Rows of the GPU; on a CPU there is no other path to compare."""
    targets = [goal.target for goal in GOALS]
    if options.device == "cpu":
        return
    if not torch.cuda.is_available():
        yield from without_gpu(GOALS)
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    ours, theirs = (
        make(PUBLISHED, 32, "cuda", precision=p, visible=True) for p in ("bf16", "fp32")
    )
    _our_steps(ours, 20)
    rate = 512 * 60 / seconds(lambda: _our_steps(ours, 60))
    theirs.denoiser.load_state_dict(ours.denoiser.state_dict())
    limit = 3 * rate / 35  # images per second
    for training in (ours, theirs):
        training.denoiser.eval()
    noise = torch.randn((MANY, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    recipe = Recipe.model_validate(ours.recipe.model_dump() | {"eval": {"num_samples": MANY}})
    draw = partial(sample, ours.denoiser, noise, None, recipe, torch.device("cuda"), BATCH)
    settings = recipe.eval
    sigmas = karras_sigmas(18, 0.002, settings.sigma_max, settings.rho)
    eagerly = partial(sample_eagerly, theirs.denoiser, noise[:FEW].cuda(), sigmas)
    difference = _difference(draw(), to_uint8(eagerly()).permute(0, 2, 3, 1).cpu().numpy())
    times = take_turns({"ours": draw, "theirs": lambda: eagerly().cpu()}, 3)
    times["ours"] = [t / MANY for t in times["ours"]]
    times["theirs"] = [t / FEW for t in times["theirs"]]
    found = 1 / sorted(times["ours"])[1]
    facts = {
        "images_per_second": {side: 1 / sorted(t)[1] for side, t in times.items()},
        "mean_difference_in_grey_levels": difference,
        "tflops": found * 35 * flops_of_training(ours) / 3 / 1e12,
    }
    yield compare(NAME, AGAINST, targets[0], times, ("ours", "theirs"), **facts)
    details = {"images_per_second": found, "limit": limit}
    yield Row(NAME, LIMIT, targets[1], limit / found, "of its time", details=details)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean difference of the images that both sides drew; SystemExit if they are others."""
    difference = np.abs(found[: len(expected)].astype(int) - expected.astype(int)).mean()
    if difference > 2:
        raise SystemExit(f"samples differ by {difference:.2f} grey levels on average")
    return float(difference)
