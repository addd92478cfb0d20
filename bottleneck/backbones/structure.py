"""Find the stages and layer groups of any network by watching one forward pass.

There is no table of architectures. A pass records which modules run, in which order, and the shape of what they
return. A **stage** ends where the feature map is about to shrink (ResNet's ``layer1`` ... ``layer4``); networks
whose maps never shrink (vision transformers) have a stage at every quarter of their blocks. **Layer groups** cut
the parameters at the same places; transformers, and convolutional networks built as these are (ConvNeXt), are cut
after every block.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bottleneck.errors import BackboneError

Layout = Literal["nchw", "nhwc", "tokens"]
Shape = tuple[int, ...]

SPACE = {"nchw": (2, 3), "nhwc": (1, 2), "tokens": (1,)}
"""Axes that pooling takes the mean over."""

MIN_STAGES = 4
"""Transformers have this many, and networks without maps as many groups; a lone first convolution is a stage only
where there would be fewer without it."""

SHRINKS = 1.5
"""Ratio of sides from which a map counts as smaller: halving an odd side gives 1.67 to 2.3, unpadded borders 1.02."""

SHRINKS_TWICE = 3.0
"""Ratio of sides from which a module holds more than one stage and is looked into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A place in a network whose feature map is pooled: ``module`` returns ``n_features`` channels in ``layout``."""

    name: str
    module: str
    n_features: int
    layout: Layout

    def pool(self, output: Tensor) -> Tensor:
        """Return the mean over space, float32, shape (n, n_features)."""
        return output.float().mean(dim=SPACE[self.layout])


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerGroup:
    """Parameters (names inside the network) that share a learning rate when the network is fine-tuned."""

    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """What one pass tells about a network; stages and groups are ordered from the input to the output."""

    n_features: int
    stages: tuple[Stage, ...]
    layer_groups: tuple[LayerGroup, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureMap:
    """A tensor with space in it; ``side`` is the geometric mean of height and width in pixels or tokens."""

    layout: Layout
    side: float
    n_features: int


@dataclass(kw_only=True, slots=True)
class Call:
    """One module running: filled in while the network runs, hence not frozen."""

    name: str
    module: nn.Module
    start: int
    given: FeatureMap | None
    returned: FeatureMap | None = None
    shape: Shape | None = None
    end: int = 0
    children: list["Call"] = field(default_factory=list)

    def walk(self) -> Iterator["Call"]:
        """Yield this call and all calls made by it, in the order in which they started."""
        yield self
        for child in self.children:
            yield from child.walk()


def find_structure(network: nn.Module, image: Tensor, *, stage_modules: Sequence[str] = ()) -> Structure:
    """Watch one pass of ``image`` through a network without its classification layer.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    image : Tensor
        Normalised input of shape (n, 3, height, width). On the "meta" device nothing is computed.
    stage_modules : sequence of str, optional
        The modules that end the stages, where the author of a network knows better.

    Raises
    ------
    BackboneError
        The network does not run on such an image, or does not return features of shape (n, n_features).
    """
    root = trace(network, image)
    if root.shape is None or len(root.shape) != 2 or root.shape[0] != image.shape[0]:
        raise BackboneError(
            f"The network must return features of shape (n, n_features). For images of shape {tuple(image.shape)} it "
            f"returns {root.shape or 'no tensor'}. Pool and flatten them, for example with "
            "torch.nn.Sequential(network, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())."
        )
    calls = {call.name: call for call in root.walk()}
    ends = [calls[name] for name in stage_modules] or _stage_ends(root)
    stages = tuple(
        Stage(name=f"stage{i}", module=end.name, n_features=end.returned.n_features, layout=end.returned.layout)
        for i, end in enumerate(ends, start=1)
        if end.returned is not None
    )
    # Transformers want their rates per block (ViT: 0.75 a block); feature maps that are not NCHW come from them too.
    per_block = has_layer_norm(network) or any(stage.layout != "nchw" for stage in stages)
    blocks = _repeated_blocks(root) if per_block else []
    groups = _layer_groups(network, root, blocks or ends, unit="block" if blocks else "stage")
    return Structure(n_features=root.shape[1], stages=stages, layer_groups=groups)


def has_layer_norm(network: nn.Module) -> bool:
    """Say whether the network normalises by layer, as transformers and ConvNeXt do."""
    return any(isinstance(module, nn.LayerNorm | nn.RMSNorm) for module in network.modules())


def trace(network: nn.Module, image: Tensor) -> Call:
    """Run ``image`` through a network, on the image's device, and return the tree of calls.

    Raises
    ------
    BackboneError
        The network does not run on such an image.
    """
    clock = count()
    outside = Call(name="", module=network, start=-1, given=None)
    running = [outside]

    def enter(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        call = Call(name=name, module=module, start=next(clock), given=_feature_map(args[0] if args else None, image))
        running[-1].children.append(call)
        running.append(call)

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = running.pop()
        call.end = next(clock)
        call.shape = tuple(output.shape) if isinstance(output, Tensor) else None
        call.returned = _feature_map(output, image)

    state = {name: tensor.to(image.device) for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            hooks.callback(module.register_forward_pre_hook(partial(enter, name)).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        try:
            functional_call(network, state, (image,))
        except Exception as exc:
            raise BackboneError(
                f"The network does not run on images of shape {tuple(image.shape)}: {exc} "
                "Another size can be set with preprocess=Preprocess(...)."
            ) from exc
    return outside.children[0]


def _feature_map(value: object, image: Tensor) -> FeatureMap | None:
    """Recognise a tensor that has one map per image of the batch."""
    if not isinstance(value, Tensor) or value.ndim < 3 or value.shape[0] != image.shape[0] or 0 in value.shape:
        return None
    aspect = image.shape[2] / image.shape[3]
    match tuple(value.shape[1:]):
        case (a, b, c):
            nchw, nhwc = (abs(math.log(height / width / aspect)) for height, width in ((b, c), (a, b)))
            if nhwc < nchw:
                return FeatureMap(layout="nhwc", side=math.sqrt(a * b), n_features=c)
            return FeatureMap(layout="nchw", side=math.sqrt(b * c), n_features=a)
        case (n_tokens, width):
            return FeatureMap(layout="tokens", side=math.sqrt(n_tokens), n_features=width)
    return None


def _stage_ends(root: Call) -> list[Call]:
    runs = Counter(call.name for call in root.walk())
    levels = [level for level in _levels(root) if any(_has_parameters(call) for call in level)]
    if len(levels) > MIN_STAGES and sum(map(_n_matrices, levels[0])) <= 1:
        levels = levels[1:]
    # A hook on a module that runs several times would see its last run only.
    ends = [[call for call in level if runs[call.name] == 1 and not _is_idle(call)] for level in levels]
    found = [level[-1] for level in ends if level]
    blocks = [call for call in _repeated_blocks(root) if runs[call.name] == 1]
    if len(found) < 2 and len(blocks) >= MIN_STAGES:
        return [blocks[len(blocks) * i // MIN_STAGES - 1] for i in range(1, MIN_STAGES + 1)]
    return found


def _levels(root: Call) -> list[list[Call]]:
    """Group the modules along the trunk by the size of the map that they return, up to global pooling."""
    levels: list[list[Call]] = []
    side = math.inf
    for call in (inner for child in root.children for inner in _unfolded(child)):
        if call.returned is None:
            continue
        if side > 2 and call.returned.side <= 1:
            break
        if side / call.returned.side >= SHRINKS:
            levels.append([])
            side = call.returned.side
        levels[-1].append(call)
    return levels


def _unfolded(call: Call) -> Iterator[Call]:
    """Yield the call, or what runs inside of it when it holds more than one stage (global pooling is not one)."""
    sides = [inner.returned.side for inner in (call, *call.children) if inner.returned is not None]
    smallest = min((side for side in sides if side > 1), default=math.inf)
    if call.given is not None and call.given.side / smallest >= SHRINKS_TWICE and call.children:
        for child in call.children:
            yield from _unfolded(child)
    else:
        yield call


def _repeated_blocks(call: Call) -> list[Call]:
    """Find the outermost modules that have a sibling of their class with the same output: a transformer's blocks."""
    kinds = Counter((type(child.module), child.shape) for child in call.children)
    blocks: list[Call] = []
    for child in call.children:
        repeated = kinds[type(child.module), child.shape] > 1 and child.returned is not None
        if repeated and child.children and not isinstance(child.module, nn.Sequential):
            blocks.append(child)
        else:
            blocks.extend(_repeated_blocks(child))
    return blocks


def _layer_groups(network: nn.Module, root: Call, ends: Sequence[Call], *, unit: str) -> tuple[LayerGroup, ...]:
    """Cut the parameters, in the order in which they are first used, at the ends of stages or blocks."""
    starts: dict[str, int] = {}
    for call in root.walk():
        starts.setdefault(call.name, call.start)
    used = {name: _first_use(name, starts) for name, _ in network.named_parameters()}
    in_order = sorted(used, key=used.__getitem__)
    if not ends:
        return _parts(in_order)
    members: list[list[str]] = [[] for _ in range(len(ends) + 1)]
    for name in in_order:
        members[sum(end.end < used[name] for end in ends)].append(name)
    # A lone normalisation after the last stage is no layer to give a rate of its own.
    if not any(network.get_parameter(name).ndim > 1 for name in members[-1]):
        members[-2].extend(members.pop())
    names = [f"{'stem+' if i == 1 else ''}{unit}{i}" for i in range(1, len(ends) + 1)] + ["rest"]
    return tuple(
        LayerGroup(name=name, parameters=tuple(parameters))
        for name, parameters in zip(names, members, strict=False)
        if parameters
    )


def _parts(parameters: Sequence[str]) -> tuple[LayerGroup, ...]:
    """Cut the parameters of a network without feature maps into parts of about as many layers each."""
    layers: dict[str, list[str]] = {}
    for name in parameters:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    n_parts = min(MIN_STAGES, len(layers))
    members: list[list[str]] = [[] for _ in range(n_parts)]
    for i, names in enumerate(layers.values()):
        members[i * n_parts // len(layers)].extend(names)
    return tuple(LayerGroup(name=f"part{i}", parameters=tuple(names)) for i, names in enumerate(members, start=1))


def _first_use(parameter: str, starts: dict[str, int]) -> int:
    """Return when the nearest module around a parameter that was seen running started (the network itself: 0)."""
    owner = parameter.rpartition(".")[0]
    while owner not in starts:
        owner = owner.rpartition(".")[0]
    return starts[owner]


def _has_parameters(call: Call) -> bool:
    return any(True for _ in call.module.parameters())


def _n_matrices(call: Call) -> int:
    return sum(parameter.ndim > 1 for parameter in call.module.parameters())


def _is_idle(call: Call) -> bool:
    """Say whether a module only passes on what it was given, if in another order of axes."""
    if isinstance(call.module, nn.Identity | nn.Dropout):
        return True
    rearranged = call.given is not None and call.returned is not None and call.given.layout != call.returned.layout
    return rearranged and not _has_parameters(call)
