"""How long a head takes on a device: a million rows of features that are made there and never leave it.

    python tests/benchmarks/heads_device.py [--device cuda] [--rows 1000000] [--features 2048] [--classes 100]
                                            [--head logistic] [--normalize auto]

The features are like those of a network: correlated, not negative, with classes that overlap. The device holds them
and their scores, 16 GiB for a million rows of 2,048, beside some GiB of held-out decisions. The accuracy is that of
rows held out in five folds. Prints JSON; ``--device cpu --rows 3000`` shows without a GPU that it runs.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch

from bottleneck import LogisticHead, SVMHead

HEADS = {"logistic": LogisticHead, "svm": SVMHead}


def draw(n_rows: int, n_features: int, n_classes: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (n, d), block by block, and labels (n,), both on the device."""
    generator = torch.Generator(device).manual_seed(0)
    fresh = {"device": device, "generator": generator}
    means = 0.2 * torch.randn(n_classes, n_features, **fresh)
    spectrum = 1 / torch.arange(1, n_features + 1, device=device) ** 0.5
    mixing = torch.randn(n_features, n_features, **fresh) * spectrum[:, None]
    labels = torch.randint(n_classes, (n_rows,), **fresh)
    features = torch.empty(n_rows, n_features, device=device)
    for start in range(0, n_rows, 2**16):
        block = slice(start, start + 2**16)
        own = labels[block]
        noise = torch.randn(len(own), n_features, **fresh) @ mixing
        features[block] = torch.relu(means[own] + 0.5 + noise)
    return features, labels


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Fit one head and return what it took."""
    device = torch.device(arguments.device)
    features, labels = draw(arguments.rows, arguments.features, arguments.classes, device)
    head = HEADS[arguments.head](device=device, normalize=arguments.normalize, random_state=0)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    head.fit(features, labels)
    seconds = time.perf_counter() - start
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "processor",
        "torch": torch.__version__,
        "head": arguments.head,
        "rows": arguments.rows,
        "features": arguments.features,
        "classes": arguments.classes,
        "seconds": round(seconds, 2),
        "held_out_accuracy": round(head.accuracy_cv_, 4),
        "held_out_log_loss": round(head.log_loss_cv_, 4),
        "normalize": head.normalize_,
        "C": head.C_,
        "n_Cs": len(np.asarray(head.Cs_)),
        "n_iter": head.n_iter_,
        "peak_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 1) if on_gpu else None,
    }


def parse(words: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--head", choices=sorted(HEADS), default="logistic")
    parser.add_argument("--normalize", default="auto")
    return parser.parse_args(words)


if __name__ == "__main__":
    json.dump(measure(parse(sys.argv[1:])), sys.stdout, indent=2)
    sys.stdout.write("\n")
