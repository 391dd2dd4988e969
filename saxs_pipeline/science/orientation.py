"""Images as a file stores them and as the geometry means them: the eight flips and quarter turns.

Words are those of an image with its first row at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Turn = Callable[[NDArray[Any]], NDArray[Any]]


class _Orientation(NamedTuple):
    """From the stored image to the one that is meant, and back; both return views."""

    turned: Turn
    back: Turn
    swaps_axes: bool = False


ORIENTATIONS: Mapping[str, _Orientation] = {
    "none": _Orientation(lambda a: a, lambda a: a),
    "flip_up_down": _Orientation(np.flipud, np.flipud),
    "flip_left_right": _Orientation(np.fliplr, np.fliplr),
    "rotate_180": _Orientation(lambda a: np.rot90(a, 2), lambda a: np.rot90(a, 2)),
    "rotate_left": _Orientation(np.rot90, lambda a: np.rot90(a, -1), True),
    "rotate_right": _Orientation(lambda a: np.rot90(a, -1), np.rot90, True),
    "transpose": _Orientation(np.transpose, np.transpose, True),
    "transpose_anti": _Orientation(lambda a: np.rot90(a.T, 2), lambda a: np.rot90(a.T, 2), True),
}


def turned(image: NDArray[Any], orientation: str) -> NDArray[Any]:
    """The image (ny, nx) that is meant by a stored one; a view."""
    return ORIENTATIONS[orientation].turned(image)


def stored(image: NDArray[Any], orientation: str) -> NDArray[Any]:
    """The image as it would be stored, (ny, nx), in memory of its own and in order."""
    return np.array(ORIENTATIONS[orientation].back(image), order="C")


def turned_shape(shape: tuple[int, int], orientation: str) -> tuple[int, int]:
    """Rows and columns of the image that is meant."""
    return shape[::-1] if ORIENTATIONS[orientation].swaps_axes else shape
