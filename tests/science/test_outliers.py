"""Pixels that fluctuate as counts do stay in their bin; those that do not belong there are found."""

import numpy as np
import pytest
from scipy import stats

from saxs_pipeline.science.outliers import SigmaClip, outliers, pulls, roots

CLIP = SigmaClip(5.0, 5)
PIXELS = 750
BINS = 160
LABEL = np.repeat(np.arange(BINS), PIXELS)


def found(signal, norm=None, *, clip=CLIP, label=LABEL, gain=1.0, read_noise=0.0):
    norm = np.ones(len(label)) if norm is None else norm
    return outliers(signal.astype(float), norm, label, clip, gain=gain, read_noise=read_noise)


@pytest.mark.parametrize("photons", [0.01, 0.1, 1, 3, 8, 12, 20, 30, 100, 1e3, 1e5])
def test_the_limit_lies_outside_that_of_the_normal_distribution_for_counts_of_any_level(photons):
    """Tails of the Poisson distribution beyond a pull of ± 5, from scipy; the normal one has 2.87e-7 each."""
    counts = np.arange(np.floor(max(photons - 12 * photons**0.5, 0)), photons + 12 * photons**0.5 + 40)
    far = pulls(roots(counts, 1.0, 0.0), roots(np.full(len(counts), photons), 1.0, 0.0), 1.0)
    low, high = counts[far >= -5][0], counts[far <= 5][-1]
    assert stats.poisson.cdf(low - 1, photons) < stats.norm.sf(5)
    assert stats.poisson.sf(high, photons) < stats.norm.sf(5)
    assert high < photons + 20 * max(photons, 1) ** 0.5


@pytest.mark.parametrize("photons", [0.01, 0.3, 1, 10, 30, 1e5])
@pytest.mark.parametrize(("gain", "read_noise"), [(1.0, 0.0), (1.6, 2.0), (1.0, 10.0)])
@pytest.mark.parametrize("flat", [False, True], ids=["alone", "flat"])
def test_what_counting_statistics_allow_stays(photons, gain, read_noise, flat):
    """Of 120,000 pixels a normal distribution has 0.07 beyond 5 standard deviations."""
    rng = np.random.default_rng(1)
    norm = 0.5 + rng.random(len(LABEL)) if flat else np.ones(len(LABEL))
    signal = gain * rng.poisson(photons * norm) + rng.normal(0, read_noise, len(LABEL))
    assert found(signal, norm, gain=gain, read_noise=read_noise).sum() <= 2


def test_an_intensity_that_changes_within_its_bin_is_no_outlier():
    """A factor of three across each bin, 10⁵ photons: 300 standard deviations of the counts."""
    rng = np.random.default_rng(2)
    place = np.tile(np.linspace(1, 1.45, PIXELS), BINS)
    assert not found(rng.poisson(1e5 * place**-3)).any()


@pytest.mark.parametrize("photons", [0.01, 1, 30, 1e5])
def test_zingers_of_twenty_standard_deviations_are_found_and_nothing_else(photons):
    """Also beside one that is far larger, which moves mean and scatter of its bin."""
    rng = np.random.default_rng(3)
    signal = rng.poisson(photons, len(LABEL)).astype(float)
    zingers = np.zeros(len(LABEL), bool)
    zingers[::1171] = True
    signal[zingers] = photons + 21 * max(photons, 1) ** 0.5
    signal[::11710] = 1e9
    odd = found(signal)
    assert odd[zingers].all()
    assert (odd & ~zingers).sum() <= 1


def test_a_few_pixels_are_enough():
    """One zinger among three pixels; of two pixels that differ none can be told to be wrong."""
    label = np.array([0, 0, 0, 4, 4, 5])
    odd = found(np.array([1.0, 2.0, 500.0, 1.0, 500.0, 700.0]), label=label)
    np.testing.assert_array_equal(odd, [False, False, True, False, False, False])
    assert found(np.zeros(0), label=np.zeros(0, int)).shape == (0,)


def test_a_dead_pixel_is_an_outlier_where_there_is_light():
    signal = np.full(len(LABEL), 400.0)
    signal[5] = 0
    np.testing.assert_array_equal(np.flatnonzero(found(signal)), [5])
