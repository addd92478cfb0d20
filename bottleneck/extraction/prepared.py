"""Networks prepared once a backbone and device, and kept for as long as the backbone is."""

import threading
import weakref
from dataclasses import dataclass, field

import torch
from torch import nn

from bottleneck.backbones import Backbone
from bottleneck.extraction.arrangement import Arrangement, ArrangementChoice
from bottleneck.extraction.compiled import CompiledNetworks
from bottleneck.extraction.network import prepare_for_inference
from bottleneck.extraction.tapped import TappedNetwork
from bottleneck.extraction.threads import ThreadChoice

MAX_DEVICES = 2
"""Prepared copies of one backbone that are kept, the latest: one a device."""


@dataclass(kw_only=True, slots=True, eq=False)
class PreparedNetwork:
    """A network ready for one device, what was compiled of it, and what has been learnt about its speed there."""

    network: TappedNetwork
    compiled: CompiledNetworks
    _threads: dict[int, ThreadChoice] = field(default_factory=dict)
    _choices: dict[tuple[object, ...], ArrangementChoice] = field(default_factory=dict)

    @property
    def threads(self) -> ThreadChoice:
        """What is known about passes in the calling thread, with as many threads as torch may use now."""
        return self._threads.setdefault(torch.get_num_threads(), ThreadChoice())

    def choice_among(self, candidates: tuple[Arrangement, ...], kind: object) -> ArrangementChoice:
        """Return what is known about these arrangements for one kind of work, such as one arithmetic."""
        return self._choices.setdefault((candidates, kind), ArrangementChoice(candidates))


# By the network, not by the backbone: records with slots cannot be referred to weakly.
_prepared: weakref.WeakKeyDictionary[nn.Module, dict[torch.device, PreparedNetwork]] = weakref.WeakKeyDictionary()
_preparing = threading.Lock()


def prepared_network(backbone: Backbone, device: torch.device) -> PreparedNetwork:
    """Return the backbone's network prepared for a device: made at the first call, the same object ever after."""
    with _preparing:
        kept = _prepared.setdefault(backbone.network, {})
        ready = kept.pop(device, None) or _prepare(backbone, device)
        kept[device] = ready  # the last is the latest
        while len(kept) > MAX_DEVICES:
            del kept[next(iter(kept))]
        return ready


def _prepare(backbone: Backbone, device: torch.device) -> PreparedNetwork:
    network = TappedNetwork(backbone, prepare_for_inference(backbone.network, device), device)
    return PreparedNetwork(network=network, compiled=CompiledNetworks(network))
