"""Fitted heads as torch modules: features to probabilities, in float64 as the heads themselves compute."""

import math
from itertools import accumulate, combinations
from typing import Any

import torch
from torch import Tensor, nn

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead, RbfMachine, SVMHead
from bottleneck.heads.normalize import row_normalization


class LinearDecisions(nn.Module):
    """The decisions of a linear head: float32 (n, n_features) to float64 (n, n_outputs)."""

    def __init__(self, head: LogisticHead | SVMHead) -> None:
        super().__init__()
        self.normalize_rows = row_normalization(head.normalize_) == "l2"
        self.register_buffer("coef", torch.from_numpy(head.coef_).double())
        self.register_buffer("intercept", torch.from_numpy(head.intercept_).double())

    def forward(self, features: Tensor) -> Tensor:
        """Return the decisions."""
        rows = unit_rows(features) if self.normalize_rows else features
        decisions: Tensor = rows.double() @ self.get_buffer("coef").T + self.get_buffer("intercept")
        return decisions


class RbfDecisions(nn.Module):
    """The decisions of a machine with the RBF kernel: float32 (n, n_features) to float64 (n, n_outputs)."""

    def __init__(self, machine: RbfMachine) -> None:
        super().__init__()
        self.normalize_rows = row_normalization(machine.normalizer.kind) == "l2"
        self.gamma = machine.gamma
        self.n_support = machine.n_support.tolist()
        for name in ("center", "scale"):
            self.register_buffer(name, torch.from_numpy(getattr(machine.normalizer, name)))
        for name in ("support_vectors", "dual_coef", "intercept"):
            self.register_buffer(name, torch.from_numpy(getattr(machine, name)))

    def forward(self, features: Tensor) -> Tensor:
        """Return the decisions."""
        rows = unit_rows(features) if self.normalize_rows else features
        rows = (rows.double() - self.get_buffer("center")) / self.get_buffer("scale")
        vectors = self.get_buffer("support_vectors")
        # |a - b|^2 by its parts: differences of all pairs would be (n, n_support, n_features).
        squares = rows.square().sum(dim=1, keepdim=True) + vectors.square().sum(dim=1) - 2 * rows @ vectors.T
        pairs = self._between_pairs(torch.exp(-self.gamma * squares))
        return -pairs if len(self.n_support) == 2 else self._count_votes(pairs)

    def _between_pairs(self, kernel: Tensor) -> Tensor:
        ends = [*accumulate(self.n_support)]
        of_class = [slice(end - size, end) for end, size in zip(ends, self.n_support, strict=True)]
        own = [kernel[:, part] for part in of_class]
        weights = [self.get_buffer("dual_coef")[:, part] for part in of_class]
        decisions = [
            own[first] @ weights[first][second - 1] + own[second] @ weights[second][first]
            for first, second in combinations(range(len(own)), 2)
        ]
        return torch.stack(decisions, dim=1) + self.get_buffer("intercept")

    def _count_votes(self, pairs: Tensor) -> Tensor:
        """Do what ``count_votes`` does: the wins of a class, then its margins."""
        n_classes = len(self.n_support)
        wins: list[list[Tensor]] = [[] for _ in range(n_classes)]
        margins: list[list[Tensor]] = [[] for _ in range(n_classes)]
        for column, (first, second) in enumerate(combinations(range(n_classes), 2)):
            won = (pairs[:, column] >= 0).double()
            wins[first].append(won)
            wins[second].append(1 - won)
            margins[first].append(pairs[:, column])
            margins[second].append(-pairs[:, column])
        votes = torch.stack([torch.stack(of_class).sum(dim=0) for of_class in wins], dim=1)
        margin = torch.stack([torch.stack(of_class).sum(dim=0) for of_class in margins], dim=1)
        return votes + margin / (3 * (margin.abs() + 1))


class Probabilities(nn.Module):
    """A fitted head: float32 features (n, n_features) to float32 probabilities (n, n_classes)."""

    def __init__(self, decisions: LinearDecisions | RbfDecisions, *, slope: float, multilabel: bool) -> None:
        super().__init__()
        self.decisions = decisions
        self.slope = slope
        self.multilabel = multilabel

    def forward(self, features: Tensor) -> Tensor:
        """Return the probabilities."""
        logits = self.slope * self.decisions(features)
        if self.multilabel:
            return torch.sigmoid(logits).float()
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return torch.softmax(logits, dim=1).float()


def unit_rows(features: Tensor) -> Tensor:
    """Divide each row by its L2 norm; a row of zeros stays one."""
    norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / torch.where(norms > 0, norms, 1.0)


def as_module(head: Any) -> Probabilities:
    """Return a fitted head as a module.

    Raises
    ------
    InvalidInputError
        The head is none of the library's, or has no probabilities.
    """
    if type(head) not in (LogisticHead, SVMHead):
        raise InvalidInputError(f"Only classifiers with a LogisticHead or an SVMHead can be exported. Got {head!r}.")
    is_svm = isinstance(head, SVMHead)
    slope = float(getattr(head, "slope_", 1.0))
    if math.isnan(slope):
        raise InvalidInputError(
            "This SVMHead has no probabilities to export: no row could be held out to calibrate its decisions. "
            "Use a LogisticHead, or more images."
        )
    decisions = RbfDecisions(head.machine_) if is_svm and head.kernel == "rbf" else LinearDecisions(head)
    return Probabilities(decisions, slope=slope, multilabel=getattr(head, "multilabel_", False))
