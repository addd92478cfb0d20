"""Networks for the tests of backbones, and naive oracles for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bottleneck.backbones import Backbone, Preprocess

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

CIFAR = Preprocess(resize=32, crop=(32, 32), **IMAGENET)


class ParametersOnMeta(TorchFunctionMode):
    """Create parameters on the meta device, where they take neither memory nor time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Only what parameters are made with: RegNet computes its widths with tensors and needs their values.
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **device})


class BasicBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        added = out.shape[1] - x.shape[1]
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added // 2, added // 2)) if added else x
        return functional.relu(out + shortcut)


class ResNet20(nn.Module):
    """The CIFAR-10 network of He et al. 2016 with option-A shortcuts."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.layer3 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.linear = nn.Linear(64, n_classes)

    def features(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))


def small_network(n_classes: int | None = 5) -> nn.Sequential:
    """Return a seeded network of three stages; without ``n_classes`` it ends in 16 features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ]
        return nn.Sequential(*layers, *([nn.Linear(16, n_classes)] if n_classes else []))


def random_pixels(n: int, size: tuple[int, int] = (32, 32), *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=generator)


def input_of_last_layer(network: nn.Module, last: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the untouched network gives its last layer, and the logits."""
    received: list[Tensor] = []
    hook = network.get_submodule(last).register_forward_pre_hook(lambda _, args: received.append(args[0]))
    with torch.inference_mode():
        logits = network.eval()(images)
    hook.remove()
    return received[0], logits


def pooled_by_hand(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Run the network once for each stage and average its map over space."""
    pooled = {}
    for stage in backbone.stages:
        seen: list[Tensor] = []
        # Copied at once: the next layer may be a ReLU that works in place.
        module = backbone.network.get_submodule(stage.module)
        hook = module.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output.clone()))
        with torch.inference_mode():
            backbone.network(images)
        hook.remove()
        pooled[stage.name] = seen[0].mean(dim={"nchw": (2, 3), "nhwc": (1, 2), "tokens": (1,)}[stage.layout])
    return pooled


def n_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def save_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path
