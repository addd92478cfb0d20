"""Frozen BatchNorm folded into its convolution while both still learn.

With frozen statistics BatchNorm multiplies and shifts each channel of what its convolution returns. Multiplying the
convolution's weights instead is the same function of the same parameters, and has the same gradients, up to
rounding; but no feature map is read and written again, forward or backward, which takes a third of a training step.
"""

import torch
from torch import Tensor, nn

from bottleneck.extraction import foldable_pairs


class FoldedConv2d(nn.Conv2d):
    """A convolution that also does what its frozen BatchNorm (``folded_norm``) would do."""

    folded_norm: "FoldedBatchNorm2d"

    def forward(self, maps: Tensor) -> Tensor:
        """Return the normalised maps."""
        norm = self.folded_norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale, shift = torch.rsqrt(norm.running_var + norm.eps), -norm.running_mean
        if norm.weight is not None:
            scale = scale * norm.weight
        if self.bias is not None:
            shift = shift + self.bias
        shift = shift * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        folded: Tensor = self._conv_forward(maps, self.weight * scale[:, None, None, None], shift)
        return folded


class FoldedBatchNorm2d(nn.BatchNorm2d):
    """A frozen BatchNorm whose work its convolution does: it holds the parameters and passes maps on."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps as they are."""
        return maps


def fold_frozen(network: nn.Module) -> int:
    """Fold, in place, every BatchNorm that directly follows a convolution; return how many.

    Modules, parameters and buffers keep their names, and optimizers and state dicts notice nothing.
    """
    pairs = foldable_pairs(network)
    for conv_name, norm_name in pairs:
        conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        conv.__class__, norm.__class__ = FoldedConv2d, FoldedBatchNorm2d
        # Set as a plain attribute: as a submodule it would appear twice in the state dict.
        object.__setattr__(conv, "folded_norm", norm)
    return len(pairs)
