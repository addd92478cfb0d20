"""`bottleneck doctor`: what this machine has, and what stands in the way."""

import platform
from importlib.metadata import PackageNotFoundError, version

from bottleneck.cli import options as opt
from bottleneck.cli.output import emit

REQUIRED = ("torch", "torchvision", "scikit-learn", "joblib", "numpy", "h5py", "pillow", "safetensors", "tomlkit")
OPTIONAL = ("timm", "jinja2", "matplotlib", "pandas", "pyarrow", "onnxruntime", "dask")


def doctor(cache_dir: opt.CacheDir = None, json: opt.Json = False) -> None:
    """Report versions, devices, the cache, and anything that stands in the way."""
    import torch

    from bottleneck import __version__
    from bottleneck.extraction import fastest_precision, resolve_device
    from bottleneck.features import default_cache_dir
    from bottleneck.torchvision_door import has_operators

    device = resolve_device("auto")
    where = cache_dir or default_cache_dir()
    found = {package: _version(package) for package in (*REQUIRED, *OPTIONAL)}
    problems = _problems(found)
    facts = {
        "bottleneck-features": __version__,
        "python": platform.python_version(),
        **{package: number or "not installed" for package, number in found.items()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": fastest_precision(device),
        "torchvision operators": "loaded" if has_operators() else "not loaded (not needed: images decode with Pillow)",
        "cache": f"{where} ({'exists' if where.is_dir() else 'not made yet'})",
    }
    for name, value in facts.items():
        print(f"{name:<22}{value}")
    for problem in problems:
        print(f"problem: {problem}")
    print("No problem found." if not problems else f"{len(problems)} problem(s) found.")
    emit(json, **facts, problems=problems)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _problems(found: dict[str, str | None]) -> list[str]:
    problems = []
    if pydata := _version("Bottleneck"):
        problems.append(
            f"PyData's Bottleneck {pydata} is installed beside this package, and both use the import name bottleneck: "
            "one has overwritten the other's files. Keep them in environments of their own."
        )
    problems += [f"{package} is missing. Reinstall bottleneck-features." for package in REQUIRED if not found[package]]
    return problems
