"""Hot, noisy, stuck and dead pixels of a simulated detector are found, and no others."""

import numpy as np

from saxs_pipeline.science import bad_pixels, corrections

SHAPE = (200, 220)
LIMITS = {"hot": 10.0, "noisy": 5.0}


def darks(n, spoil=None):
    rng = np.random.default_rng(1)
    frames = np.round(rng.normal(12, 2.0, (n, *SHAPE)) + np.linspace(0, 1, SHAPE[1]))
    if spoil is not None:
        spoil(frames, rng)
    return corrections.dark_from_sums(frames.sum(0), (frames**2).sum(0), n, pedestal=10.0, gain=1.6, read_noise=2.0)


def test_each_kind_is_found_where_it_is():
    def spoil(frames, rng):
        frames[:, 10, 20:25] += 40
        frames[:, 60, 7] += rng.normal(0, 30, len(frames))
        frames[:, 3, 3] = 12

    hot, noisy, stuck = bad_pixels.in_dark(darks(10, spoil), np.full(SHAPE, True), **LIMITS)
    assert np.argwhere(hot.pixels).tolist() == [[10, k] for k in range(20, 25)]
    assert np.argwhere(noisy.pixels).tolist() == [[60, 7]]
    assert np.argwhere(stuck.pixels).tolist() == [[3, 3]]
    assert "ADU" in hot.words and "ADU" in noisy.words


def test_a_sound_detector_loses_no_pixel():
    for n in (1, 2, 10):
        assert not any(kind.pixels.any() for kind in bad_pixels.in_dark(darks(n), np.full(SHAPE, True), **LIMITS)[:1])
    assert not any(kind.pixels.any() for kind in bad_pixels.in_dark(darks(10), np.full(SHAPE, True), **LIMITS))


def test_a_counter_whose_darks_hold_nearly_nothing():
    """A stray count is no hot pixel, a pixel that counts in every dark is."""
    counts = np.random.default_rng(2).poisson(1e-3, (10, *SHAPE)).astype(float)
    counts[:, 4, 4] = 7
    dark = corrections.dark_from_sums(counts.sum(0), (counts**2).sum(0), 10, pedestal=0.0, gain=1.0, read_noise=0.0)
    found = bad_pixels.in_dark(dark, np.full(SHAPE, True), **LIMITS)
    assert [np.argwhere(kind.pixels).tolist() for kind in found] == [[[4, 4]]]


def test_masked_pixels_are_neither_counted_nor_part_of_the_median():
    used = np.zeros(SHAPE, bool)
    used[:, 50:] = True
    flat = np.where(used, 1.0, 100.0)
    flat[5, 60], flat[6, 61] = 0.4, 2.5
    (found,) = bad_pixels.in_flat(flat, used, (0.5, 2.0))
    assert np.argwhere(found.pixels).tolist() == [[5, 60], [6, 61]]
