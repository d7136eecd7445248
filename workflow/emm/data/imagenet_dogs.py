"""2,000 dogs of ImageNet (Deng et al. 2009) for the blend of Gu et al. 2023, Fig. 2c.

Chosen from the folders of the ILSVRC2012 training set, one per synset.
"""

from itertools import islice
from pathlib import Path

import numpy as np

from emm.data.folder import find_images
from emm.data.reduced import Reduction
from emm.data.subsets import random_order
from emm.errors import UserError

BREEDS = """
    n02085620 n02085782 n02085936 n02086079 n02086240 n02086646 n02086910 n02087046 n02087394
    n02088094 n02088238 n02088364 n02088466 n02088632 n02089078 n02089867 n02089973 n02090379
    n02090622 n02090721 n02091032 n02091134 n02091244 n02091467 n02091635 n02091831 n02092002
    n02092339 n02093256 n02093428 n02093647 n02093754 n02093859 n02093991 n02094114 n02094258
    n02094433 n02095314 n02095570 n02095889 n02096051 n02096177 n02096294 n02096437 n02096585
    n02097047 n02097130 n02097209 n02097298 n02097474 n02097658 n02098105 n02098286 n02098413
    n02099267 n02099429 n02099601 n02099712 n02099849 n02100236 n02100583 n02100735 n02100877
    n02101006 n02101388 n02101556 n02102040 n02102177 n02102318 n02102480 n02102973 n02104029
    n02104365 n02105056 n02105162 n02105251 n02105412 n02105505 n02105641 n02105855 n02106030
    n02106166 n02106382 n02106550 n02106662 n02107142 n02107312 n02107574 n02107683 n02107908
    n02108000 n02108089 n02108422 n02108551 n02108915 n02109047 n02109525 n02109961 n02110063
    n02110185 n02110341 n02110627 n02110806 n02110958 n02111129 n02111277 n02111500 n02111889
    n02112018 n02112137 n02112350 n02112706 n02113023 n02113186 n02113624 n02113712 n02113799
    n02113978
"""
WILD = {
    "n02114367": "grey wolf",
    "n02114548": "white wolf",
    "n02114712": "red wolf",
    "n02114855": "coyote",
    "n02115641": "dingo",
}
SYNSETS = tuple(sorted([*BREEDS.split(), *WILD]))
PER_SYNSET, ONE_MORE = 16, 32  # images of each synset; synsets that give one more: 2,000 together
WANTED = {name: PER_SYNSET + (rank < ONE_MORE) for rank, name in enumerate(SYNSETS)}
SHUFFLE_SEED = 0  # ours; the authors' shuffle had none
REDUCTION = Reduction(32)


def dog_files(folder: Path) -> list[Path]:
    """The 2,000 files in the order of their shuffle, which is the same for all.

    The first 16 of each synset in order of their names, and one more for the first 32 synsets.
    UserError that names the synsets that are missing or have too few images.
    """
    found = {name: _first(folder / name, count) for name, count in WANTED.items()}
    _check_found(folder, found)
    files = [file for name in SYNSETS for file in found[name]]
    order = random_order(np.arange(len(files)), SHUFFLE_SEED, "imagenet_dogs")
    return [files[position] for position in order]


def _first(folder: Path, count: int) -> list[Path] | None:
    """The first images of a synset; None where it has no folder."""
    return list(islice(find_images(folder, "*"), count)) if folder.is_dir() else None


def _check_found(folder: Path, found: dict[str, list[Path] | None]) -> None:
    missing = [name for name, files in found.items() if files is None]
    if len(missing) == len(found):
        state = "has none of them" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{folder}: {state}; {len(SYNSETS)} folders of ImageNet's dogs, such as {SYNSETS[0]}, "
            "are expected there (docs/data.md)"
        )
    short = [
        f"{name} ({len(files)} of {WANTED[name]} images)"
        for name, files in found.items()
        if files is not None and len(files) < WANTED[name]
    ]
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"too few images: {', '.join(short)}"] if short else []
    if problems:
        present = len(SYNSETS) - len(missing)
        raise UserError(
            f"{folder}: {present} of {len(SYNSETS)} synsets found; {'; '.join(problems)} "
            "(docs/data.md)"
        )
