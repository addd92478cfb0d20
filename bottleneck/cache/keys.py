"""What a folder of features is the features of: everything that changes a feature, and nothing that does not."""

import hashlib
import json
from dataclasses import dataclass

from bottleneck.errors import CacheError, InvalidInputError, wrong_parameter

KEY_BYTES = 16
"""Length of the key of an image: a hash of its content."""

KEYS = "keys"
"""The dataset that holds the keys, hence no name for a layer."""

SPACE_VERSION = 1
DIGEST_CHARACTERS = 16
ABOUT = (
    "Features of images, computed once by bottleneck-features. All rows in this folder were made with the settings "
    "below; 'digest' is a hash of them and the name of this folder. manifest.jsonl lists the files in shards/."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSpace:
    """Everything besides the image that decides what its features are.

    Two spaces are equal exactly when their digests are: layers are kept sorted by name and ``preprocess`` in
    canonical JSON, however they were given.

    Parameters
    ----------
    weights
        Digest of the weights that make the features.
    layers
        ``(name, n_features)`` of each stored layer, for example ``(("penultimate", 512), ("stage1", 64))``.
    pooling
        How a feature map becomes one number a channel, for example ``"mean"``.
    preprocess
        The deterministic preprocessing as a JSON object.
    dtype
        How values are stored; only ``"float16"`` (rows that overflow are kept in float32).
    precision
        What the network computed in: ``"float32"``, ``"bfloat16"`` ...

    Raises
    ------
    InvalidInputError
        A layer that cannot be a dataset, a preprocessing that is not JSON, another dtype.
    """

    weights: str
    layers: tuple[tuple[str, int], ...]
    pooling: str
    preprocess: str
    dtype: str = "float16"
    precision: str = "float32"

    def __post_init__(self) -> None:
        names = [name for name, _ in self.layers]
        if not names or len(set(names)) < len(names) or any(_cannot_be_a_layer(*layer) for layer in self.layers):
            allowed = f"(name, n_features) pairs, names all different, without '/' or '.' and not {KEYS!r}"
            raise wrong_parameter("FeatureSpace", "layers", allowed, self.layers)
        if self.dtype != "float16":
            raise wrong_parameter("FeatureSpace", "dtype", "'float16'", self.dtype)
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))
        object.__setattr__(self, "preprocess", _canonical(_parse_preprocess(self.preprocess)))

    @property
    def digest(self) -> str:
        """16 hexadecimal characters that name this space; the name of its folder."""
        return hashlib.sha256(_canonical(self._settings()).encode()).hexdigest()[:DIGEST_CHARACTERS]

    def n_features(self, layer: str) -> int:
        """Return the width of a layer, or raise ``InvalidInputError`` naming those there are."""
        widths = dict(self.layers)
        if layer not in widths:
            raise InvalidInputError(f"There is no layer {layer!r} in this feature space, only {', '.join(widths)}.")
        return widths[layer]

    def to_json(self) -> str:
        """Return the content of ``space.json``: the settings in plain words, with digest and format version."""
        described = {"about": ABOUT, "format_version": SPACE_VERSION, "digest": self.digest, **self._settings()}
        return json.dumps(described, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "FeatureSpace":
        """Read what ``to_json`` wrote.

        Raises
        ------
        CacheError
            The text is from a newer version of the library, damaged, or does not fit its own digest.
        """
        try:
            described = json.loads(text)
            if described["format_version"] > SPACE_VERSION:
                raise CacheError(
                    f"the description has format version {described['format_version']}, and this version of "
                    f"bottleneck-features reads up to {SPACE_VERSION}: upgrade it, or choose another cache_dir"
                )
            space = cls(
                weights=described["weights"],
                layers=tuple(described["layers"].items()),
                pooling=described["pooling"],
                preprocess=json.dumps(described["preprocess"]),
                dtype=described["dtype"],
                precision=described["precision"],
            )
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise CacheError(f"it does not describe a feature space ({exc!r})") from exc
        if space.digest != described.get("digest"):
            raise CacheError("its settings do not give the digest it states: it was changed by hand or damaged")
        return space

    def _settings(self) -> dict[str, object]:
        return {
            "weights": self.weights,
            "layers": dict(self.layers),
            "pooling": self.pooling,
            "preprocess": json.loads(self.preprocess),
            "dtype": self.dtype,
            "precision": self.precision,
        }


def _cannot_be_a_layer(name: str, n_features: int) -> bool:
    return not name or name == KEYS or "/" in name or "." in name or n_features < 1


def _parse_preprocess(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise wrong_parameter("FeatureSpace", "preprocess", "JSON", text) from exc


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
