"""What networks make of labels: rows of a trained table, or fixed vectors through a layer.

Labels are indices, whichever it is. Initial weights come from torch's global generator.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from emm.errors import UserError
from emm.seeds import derive


class LabelInput(nn.Module):
    """Labels (B,) in 0..label_dim-1 to features (B, F), or (B, K) to the mean over K of them.

    Labels from label_dim on are those that `invent` or `average` added after training.
    """

    added: Tensor | None = None  # rows of these labels; no part of the weights

    def forward(self, labels: Tensor) -> Tensor:
        """Integer labels (B,) or (B, K) to features (B, F)."""
        features = self.features(labels)
        return features if labels.ndim == 1 else features.mean(1)

    def invent(self, seeds: Iterable[int]) -> None:
        """Add a label per seed, with a row drawn as those of the others were before training."""
        self._add([self.fresh(torch.Generator().manual_seed(seed)) for seed in seeds])

    def average(self, labels: Tensor) -> None:
        """Add one label whose features are the mean of those of `labels` (N,)."""
        self._add([self.table()[labels.to(self.table().device)].mean(0)])

    def _add(self, rows: list[Tensor]) -> None:
        added = torch.stack(rows).detach().to(self.table())
        if self.added is None:
            self.added = added
        else:
            self.added.copy_(added)  # a CUDA graph reads where it was

    def selected(self, labels: Tensor) -> Tensor:
        """Rows of labels, with those of added labels behind the others."""
        table = self.table()
        if self.added is not None:
            table = torch.cat([table, self.added])
        return functional.embedding(labels, table)

    def features(self, labels: Tensor) -> Tensor:
        """Features (..., F) of labels of any shape."""
        raise NotImplementedError

    def table(self) -> Tensor:
        """The rows that labels select, one per label."""
        raise NotImplementedError

    def fresh(self, generator: torch.Generator) -> Tensor:
        """One row as it is before training."""
        raise NotImplementedError


class LabelLookup(LabelInput):
    """Linear layer on one-hot labels times sqrt(label_dim), as an index lookup (EDM).

    The gradient is dense: optimizers also move labels that are absent from a batch.
    """

    def __init__(self, label_dim: int, features: int) -> None:
        super().__init__()
        self.scale = math.sqrt(label_dim)
        self.weight = nn.Parameter(torch.empty(label_dim, features))
        self.bias = nn.Parameter(torch.zeros(features))
        nn.init.xavier_uniform_(self.weight)

    def features(self, labels: Tensor) -> Tensor:
        """Rows times the scale, and a bias."""
        return self.selected(labels) * self.scale + self.bias

    def table(self) -> Tensor:
        """The weights."""
        return self.weight

    def fresh(self, generator: torch.Generator) -> Tensor:
        """A row of Xavier-uniform weights."""
        bound = math.sqrt(6 / sum(self.weight.shape))
        return torch.empty(self.weight.shape[1]).uniform_(-bound, bound, generator=generator)


class LabelEmbedding(LabelInput):
    """A row of standard normal weights per label (Nichol and Dhariwal 2021)."""

    def __init__(self, label_dim: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(label_dim, features))
        nn.init.normal_(self.weight)

    def features(self, labels: Tensor) -> Tensor:
        """The rows themselves."""
        return self.selected(labels)

    def table(self) -> Tensor:
        """The weights."""
        return self.weight

    def fresh(self, generator: torch.Generator) -> Tensor:
        """A row of normal weights."""
        return torch.randn(self.weight.shape[1], generator=generator)


class LabelVectors(LabelInput):
    """A fixed vector per label through a trained linear layer: labels share all its weights.

    `vectors` (label_dim, dim), a buffer that is never trained; see `label_vectors`.
    """

    def __init__(self, vectors: Tensor, features: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.weight = nn.Parameter(torch.empty(vectors.shape[1], features))
        self.bias = nn.Parameter(torch.zeros(features))
        nn.init.xavier_uniform_(self.weight)

    def features(self, labels: Tensor) -> Tensor:
        """The linear layer on the vectors."""
        return self.selected(labels) @ self.weight + self.bias

    def table(self) -> Tensor:
        """The vectors."""
        return self.vectors

    def fresh(self, generator: torch.Generator) -> Tensor:
        """A further vector."""
        return _vector(self.vectors.shape[1], generator)


def make_label_input(
    table: type[LabelLookup | LabelEmbedding],
    label_dim: int,
    features: int,
    vectors: Tensor | None = None,
) -> LabelInput | None:
    """What a network makes of its labels: a table, or vectors if there are any; None without."""
    if vectors is not None:
        return LabelVectors(vectors, features)
    return table(label_dim, features) if label_dim else None


def check_labels(label_dim: int, labels: Tensor | None) -> None:
    """UserError for labels that are missing, or that an unconditional network does not expect."""
    if (labels is None) == bool(label_dim):
        state = "needs labels" if label_dim else "takes no labels"
        raise UserError(f"the network {state} (label_dim {label_dim})")


def label_vectors(count: int, dim: int, seed: int) -> Tensor:
    """Random directions (count, dim) float32 of length sqrt(dim), as scaled one-hot labels have.

    Vector i depends on (seed, i) alone: a larger set begins with every smaller one.
    """
    generator, rows = torch.Generator(), []
    for index in range(count):
        rows.append(_vector(dim, generator.manual_seed(derive(seed, "label vectors", index))))
    return torch.stack(rows)


def _vector(dim: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(dim, generator=generator, device="cpu")
    return math.sqrt(dim) * functional.normalize(drawn, dim=0)


def label_input(network: nn.Module) -> LabelInput:
    """The label input of a conditional network."""
    return next(module for module in network.modules() if isinstance(module, LabelInput))
