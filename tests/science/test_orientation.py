"""Flips and quarter turns, by hand and against Pillow, which is another one's work."""

import numpy as np
import pytest
from PIL import Image

from saxs_pipeline.science.orientation import ORIENTATIONS, stored, turned, turned_shape

PILLOW = {
    "flip_up_down": Image.Transpose.FLIP_TOP_BOTTOM,
    "flip_left_right": Image.Transpose.FLIP_LEFT_RIGHT,
    "rotate_180": Image.Transpose.ROTATE_180,
    "rotate_left": Image.Transpose.ROTATE_90,
    "rotate_right": Image.Transpose.ROTATE_270,
    "transpose": Image.Transpose.TRANSPOSE,
    "transpose_anti": Image.Transpose.TRANSVERSE,
}
IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize("name", PILLOW)
def test_turned_as_pillow_does(name):
    np.testing.assert_array_equal(turned(IMAGE, name), np.asarray(Image.fromarray(IMAGE).transpose(PILLOW[name])))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_back_again(name):
    there = turned(IMAGE, name)
    assert there.shape == turned_shape(IMAGE.shape, name)
    np.testing.assert_array_equal(stored(there, name), IMAGE)
    assert stored(there, name).flags.c_contiguous


def test_there_are_eight_and_all_differ():
    square = np.arange(4).reshape(2, 2)
    assert len({turned(square, name).tobytes() for name in ORIENTATIONS}) == len(ORIENTATIONS) == 8
