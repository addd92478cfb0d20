"""Generated pictures with exact labels, on photographs: quarter turns, hues, gratings, places and counts.

Every function takes photographs (n, side, side, 3) uint8 and a generator, and returns as many pictures and their
labels. Each photograph is used once, so that pictures for learning and for testing share none. What is not the label
(shape, size, colour, background) is drawn independently of it.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray

Pictures = tuple[NDArray[np.uint8], NDArray[np.str_]]
Floats = NDArray[np.float64]

N_HUES, HUE_JITTER = 8, 0.035
ORIENTATIONS, ANGLE_JITTER = 4, 8.0
WAVELENGTHS, WAVE_JITTER = (1 / 8, 1 / 4), 0.1
"""Of the gratings, as shares of the side: 4 and 8 pixels for a network that sees 32."""
GRID = 3
MOST_SHAPES = 6
SHAPES = ("disc", "square", "triangle")


def turned(photographs: NDArray[np.uint8], rng: np.random.Generator) -> Pictures:
    """Turn each photograph by a random quarter, which is its label."""
    quarters = rng.integers(4, size=len(photographs))
    pictures = [np.rot90(photo, quarter) for photo, quarter in zip(photographs, quarters, strict=True)]
    return np.stack(pictures), np.array([f"{90 * quarter} degrees" for quarter in quarters])


def hues(photographs: NDArray[np.uint8], rng: np.random.Generator) -> Pictures:
    """Put a shape of one of eight hues on each photograph, which is made grey."""
    labels = rng.integers(N_HUES, size=len(photographs))

    def picture(photo: Floats, label: int) -> Floats:
        grey = np.repeat(photo.mean(axis=-1, keepdims=True), 3, axis=-1)
        hue = (label / N_HUES + rng.uniform(-HUE_JITTER, HUE_JITTER)) % 1
        colour = hsv_to_rgb((hue, rng.uniform(0.5, 1), rng.uniform(0.5, 1)))
        mask = shape_mask(len(photo), rng.uniform(0.3, 0.7, 2), rng.uniform(0.15, 0.3), rng)
        return np.where(mask[..., None], colour * (0.7 + 0.3 * grey), grey)

    return _each(photographs, labels, picture), np.array([f"hue {label}" for label in labels])


def gratings(photographs: NDArray[np.uint8], rng: np.random.Generator) -> Pictures:
    """Blend stripes of four orientations and two wavelengths, in random colours, with each photograph."""
    labels = rng.integers(ORIENTATIONS * len(WAVELENGTHS), size=len(photographs))

    def picture(photo: Floats, label: int) -> Floats:
        orientation, wave = label % ORIENTATIONS, WAVELENGTHS[label // ORIENTATIONS]
        angle = np.deg2rad(180 * orientation / ORIENTATIONS + rng.uniform(-ANGLE_JITTER, ANGLE_JITTER))
        wave *= rng.uniform(1 - WAVE_JITTER, 1 + WAVE_JITTER)
        x, y = _grid(len(photo))
        phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wave + rng.uniform(0, 2 * np.pi)
        share = (0.5 + 0.5 * np.sin(phase))[..., None]
        first, second = rng.uniform(0, 1, (2, 3))
        blend = rng.uniform(0.4, 0.7)
        return blend * (share * first + (1 - share) * second) + (1 - blend) * photo

    return _each(photographs, labels, picture), np.array([f"grating {label}" for label in labels])


def places(photographs: NDArray[np.uint8], rng: np.random.Generator) -> Pictures:
    """Put a shape in one of nine places on each photograph."""
    labels = rng.integers(GRID**2, size=len(photographs))

    def picture(photo: Floats, label: int) -> Floats:
        corner = np.array([label % GRID, label // GRID])
        centre = (corner + 0.5 + rng.uniform(-0.25, 0.25, 2)) / GRID
        mask = shape_mask(len(photo), centre, rng.uniform(0.08, 0.14), rng)
        return np.where(mask[..., None], rng.uniform(0, 1, 3), photo)

    return _each(photographs, labels, picture), np.array([f"place {label}" for label in labels])


def counts(photographs: NDArray[np.uint8], rng: np.random.Generator) -> Pictures:
    """Put one to six shapes that do not touch on each photograph, which is dimmed towards one colour."""
    labels = rng.integers(1, MOST_SHAPES + 1, size=len(photographs))

    def picture(photo: Floats, label: int) -> Floats:
        side = len(photo)
        found = 0.4 * photo + 0.6 * rng.uniform(0, 1, 3)
        taken: list[Floats] = []
        while len(taken) < label:
            centre, radius = rng.uniform(0.12, 0.88, 2), rng.uniform(0.06, 0.1)
            if all(np.hypot(*(centre - other)) > 0.24 for other in taken):
                taken.append(centre)
                mask = shape_mask(side, centre, radius, rng)
                # Black, white or a pure colour: told apart from whatever lies behind it.
                found[mask] = rng.integers(0, 2, 3)
        return found

    return _each(photographs, labels, picture), np.array([f"{label} shapes" for label in labels])


def shape_mask(side: int, centre: Floats, radius: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return where (side, side) a turned disc, square or triangle lies; lengths are shares of the side."""
    x, y = _grid(side)
    angle = rng.uniform(0, 2 * np.pi)
    across, along = x - centre[0], y - centre[1]
    u = across * np.cos(angle) + along * np.sin(angle)
    v = along * np.cos(angle) - across * np.sin(angle)
    match SHAPES[rng.integers(len(SHAPES))]:
        case "disc":
            return u**2 + v**2 <= radius**2
        case "square":
            return np.maximum(abs(u), abs(v)) <= 0.85 * radius
        case _:
            return (v >= -0.6 * radius) & (v + np.sqrt(3) * abs(u) <= 1.2 * radius)


def _grid(side: int) -> tuple[Floats, Floats]:
    """Return x and y (side, side) of the centres of pixels, from 0 to 1."""
    at = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(at, at)
    return x, y


def _each(
    photographs: NDArray[np.uint8], labels: NDArray[np.int64], picture: Callable[[Floats, int], Floats]
) -> NDArray[np.uint8]:
    """Return the picture of each photograph and label, in uint8."""
    made = np.empty_like(photographs)
    for i, label in enumerate(labels.tolist()):
        made[i] = np.round(255 * np.clip(picture(photographs[i] / 255, label), 0, 1)).astype(np.uint8)
    return made
