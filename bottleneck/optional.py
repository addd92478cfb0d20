"""The one way to import an optional package."""

from importlib import import_module
from types import ModuleType

from bottleneck.errors import MissingDependencyError


def require(package: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say which extra of this library brings it.

    Raises
    ------
    MissingDependencyError
        The package is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as exc:
        if exc.name != package.partition(".")[0]:
            raise
        raise MissingDependencyError(
            f"This needs the package {exc.name!r}, which is not installed. "
            f"Install it with: pip install 'bottleneck-features[{extra}]'"
        ) from exc
