"""Networks on their way through skops, which knows no tensors: what can be built by name travels as its weights."""

from typing import TYPE_CHECKING

from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from bottleneck.errors import BackboneError

if TYPE_CHECKING:
    from bottleneck.backbones.base import BackboneReference
    from bottleneck.backbones.preprocess import Preprocess


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights on the processor, each in memory of its own: safetensors refuses those that share it."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}


def pack_network(network: nn.Module, reference: "BackboneReference") -> bytes:
    """Return the weights of a network that ``reference`` can build again.

    Raises
    ------
    BackboneError
        It is an own module: code is not packed.
    """
    if not reference.rebuildable:
        raise BackboneError(
            f"{reference.backbone} is an own module, whose code only pickle (joblib.dump) keeps. Save the classifier "
            "with save(classifier, folder), or dump its head_."
        )
    return tensors_to_bytes(tensors_of(network))


def unpack_network(packed: bytes, reference: "BackboneReference", preprocess: "Preprocess") -> nn.Module:
    """Return the network of ``pack_network``."""
    from bottleneck.backbones.load import load_backbone

    network = load_backbone(reference.backbone, None, preprocess=preprocess).network
    network.load_state_dict(tensors_from_bytes(packed))
    return network
