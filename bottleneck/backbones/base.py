"""A backbone: a frozen network without its classification layer, and everything that makes its features."""

import copy
import hashlib
import inspect
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from bottleneck.backbones.packing import pack_network, unpack_network
from bottleneck.backbones.preprocess import Preprocess
from bottleneck.backbones.structure import LayerGroup, Stage, find_structure, has_layer_norm, trace
from bottleneck.errors import BackboneError

PENULTIMATE = "penultimate"
"""Name of the final features among the layers; the others are called stage1, stage2, ..."""

RANDOM = "random"
"""What ``Backbone.weights`` says where no data has shaped them: torch's initialisation."""

# torch numbers hooks with a counter that two threads may read at once.
_hooking = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneReference:
    """What ``load_backbone`` needs to build the network again; an own module is not ``rebuildable`` from it."""

    backbone: str
    weights: str | None
    rebuildable: bool


# Without slots: with them, Python 3.11.2 (3.11.7 no longer) replaces __getstate__ and __setstate__ of a frozen class.
@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A frozen pretrained network from uint8 pixels to features. Made by ``load_backbone``; never changed afterwards.

    Copies (``copy.deepcopy``, scikit-learn's ``clone``) are the same object; two backbones are equal when they are
    one object. Compare ``weights_digest`` to compare what they compute.

    Attributes
    ----------
    name : str
        For people: "resnet50", "timm:vit_tiny_patch16_224", "embedded", or the class of an own module.
    network : nn.Module
        Normalised float images (n, 3, height, width) to penultimate features (n, n_features). In eval mode, without
        gradients and without the final classification layer.
    preprocess : Preprocess
        From an image to the input of the network.
    n_features : int
        Width of the penultimate layer.
    stages : tuple of Stage
        Where pooled features can be taken on the way, from the input to the output.
    layer_groups : tuple of LayerGroup
        Every parameter of the network once, from the input to the output, for discriminative learning rates.
    weights : str
        The weights in plain words.
    weights_digest : str
        SHA-256 in hex of the architecture's name and of every tensor that makes the features.
    reference : BackboneReference
        How to build it again.
    """

    name: str
    network: nn.Module = field(repr=False)
    preprocess: Preprocess
    n_features: int
    stages: tuple[Stage, ...] = field(repr=False)
    layer_groups: tuple[LayerGroup, ...] = field(repr=False)
    weights: str
    weights_digest: str
    reference: BackboneReference = field(repr=False)

    @property
    def layer_widths(self) -> dict[str, int]:
        """Width of every layer that ``forward_layers`` returns, in its order."""
        return {PENULTIMATE: self.n_features, **{stage.name: stage.n_features for stage in self.stages}}

    @property
    def pretrained(self) -> bool:
        """Whether the weights were trained on anything; of an own module this is taken for granted."""
        return not self.weights.startswith(RANDOM)

    def takes_side(self, side: int) -> bool:
        """Say whether the network gives as many features for square images of another side in pixels.

        Not where layers are normalised each by itself: positions of patches belong to one size there.
        """
        if has_layer_norm(self.network):
            return False
        image = torch.zeros(1, 3, side, side, device=_watched_on(self.reference))
        try:
            return trace(self.network, image).shape == (1, self.n_features)
        except BackboneError:
            return False

    def forward_layers(self, pixels: Tensor) -> dict[str, Tensor]:
        """Compute the features of every layer in one pass, in eval mode and without gradients.

        Parameters
        ----------
        pixels : Tensor
            uint8 images as ``preprocess`` returns them, shape (n, 3, height, width), on any device.

        Returns
        -------
        dict of str to Tensor
            float32 on the network's device: "penultimate" of shape (n, n_features), then "stage1", ... of shape
            (n, channels), each the mean over space.
        """
        pooled: dict[str, Tensor] = {}
        device = next(self.network.parameters()).device
        self.network.eval()
        with ExitStack() as taps, torch.inference_mode():
            for stage in self.stages:
                taps.callback(_tap(self.network.get_submodule(stage.module), _pooling(stage, pooled)))
            penultimate = self.network(self.preprocess.normalise(pixels.to(device)))
        return {PENULTIMATE: penultimate.float(), **{stage.name: pooled[stage.name] for stage in self.stages}}

    def with_network(self, network: nn.Module) -> "Backbone":
        """Return this backbone with a copy of a fine-tuned network of the same structure.

        Raises
        ------
        BackboneError
            The network has other parameters than this one.
        """
        if _shapes(network) != _shapes(self.network):
            raise BackboneError(f"A fine-tuned network must have the same parameters as {self.name!r}.")
        tuned = frozen(copy.deepcopy(network))
        weights = self.weights.removesuffix(", fine-tuned") + ", fine-tuned"
        return replace(self, network=tuned, weights=weights, weights_digest=_digest(tuned, self.reference))

    def __copy__(self) -> "Backbone":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Backbone":
        return self

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        # Pickle keeps the network whole, as it is the quickest.
        return _from_fields, ({each.name: getattr(self, each.name) for each in fields(self)},)

    def __getstate__(self) -> dict[str, object]:
        # For skops, which can keep weights as bytes, but no module.
        packed = pack_network(self.network, self.reference)
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"network": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        network = unpack_network(state["network"], state["reference"], state["preprocess"])
        for name, value in (state | {"network": network}).items():
            object.__setattr__(self, name, value)


def build_backbone(
    network: nn.Module,
    reference: BackboneReference,
    *,
    name: str,
    weights: str,
    preprocess: Preprocess,
    stage_modules: Sequence[str] = (),
) -> Backbone:
    """Freeze a network without its classification layer and describe it.

    The network is taken over, not copied. Own modules are watched on their device, because code that torch cannot
    trace without data is allowed there; the others on the meta device, where nothing is computed.
    """
    frozen(network)
    structure = find_structure(network, example_batch(preprocess, _watched_on(reference)), stage_modules=stage_modules)
    return Backbone(
        name=name,
        network=network,
        preprocess=preprocess,
        n_features=structure.n_features,
        stages=structure.stages,
        layer_groups=structure.layer_groups,
        weights=weights,
        weights_digest=_digest(network, reference),
        reference=reference,
    )


def _from_fields(values: dict[str, Any]) -> Backbone:
    return Backbone(**values)


def frozen(network: nn.Module) -> nn.Module:
    """Put a network in eval mode and switch its gradients off."""
    return network.eval().requires_grad_(False)


def _watched_on(reference: BackboneReference) -> str:
    """Return the device to watch a network on, as ``build_backbone`` says."""
    return "meta" if reference.rebuildable else "cpu"


def example_batch(preprocess: Preprocess, device: str = "cpu") -> Tensor:
    """Return two images of noise as the network would get them, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, 3, *preprocess.crop), generator=generator).to(device)


def _tap(module: nn.Module, hook: Callable[[nn.Module, object, Tensor], None]) -> Callable[[], None]:
    """Call ``hook`` after every run of a module, until the returned function is called."""
    with _hooking:
        registered = module.register_forward_hook(hook)

    def untap() -> None:
        with _hooking:
            registered.remove()

    return untap


def _pooling(stage: Stage, pooled: dict[str, Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
    caller = threading.get_ident()

    def pool(module: nn.Module, args: object, output: Tensor) -> None:
        # The network may be running in other threads at the same time; their maps are not ours.
        if threading.get_ident() == caller:
            pooled[stage.name] = stage.pool(output)

    return pool


def _digest(network: nn.Module, reference: BackboneReference) -> str:
    """Hash what makes the features. The count of batches that a BatchNorm saw in training is not part of it."""
    # Strides and activations are not in the tensors: the name stands for them, or an own module's own description.
    architecture = reference.backbone if reference.rebuildable else _describe_code(network)
    sha = hashlib.sha256(architecture.encode())
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def _describe_code(network: nn.Module) -> str:
    """Return what an own module is beside its tensors: its layers, their plain attributes, and their classes' code."""
    lines = [re.sub(r" at 0x[0-9a-fA-F]+", "", repr(network))]
    for name, module in network.named_modules():
        plain = {
            key: value
            for key, value in sorted(vars(module).items())
            if not key.startswith("_") and key != "training" and isinstance(value, str | int | float | tuple | None)
        }
        lines.append(f"{name} {type(module).__qualname__} {plain}")
        if not type(module).__module__.startswith("torch.nn"):
            lines.append(_source_of(type(module)))
    return "\n".join(lines)


def _source_of(kind: type) -> str:
    """Return the code of a class, or nothing for one that was defined where no source is kept (a console)."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}
