"""Size distributions against spheres of known sizes, sasmodels, and the statistics that errors promise."""

import math

import numpy as np
import pytest

from saxs_pipeline.outputs.size_tables import size_rows
from saxs_pipeline.science import sizes
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor, sphere
from saxs_pipeline.science.scenarios import Scenario
from saxs_pipeline.science.size_inversion import kernel, radius_grid
from saxs_pipeline.size_distribution import PER_FRAME, SizeDistributions
from saxs_pipeline.stages.compiled_nonnegative import minimise
from saxs_pipeline.types import BadInput

FACTOR = intensity_factor(35.2e-6)
Q = np.linspace(0.15, 5.0, 200)
RADII = radius_grid(0.5, 6.0)
PER_NM3 = 6.02214076e-7  # crystals per nm³ and µmol/L
CLUSTERS = ((0.87, 0.94, 1.02), (25 / 3,) * 3)  # Palencia et al. 2020, Fig. 2; 25 µmol/L in all
B = 1e-4


def curve(radii, c):
    return FACTOR * np.asarray(c, float) @ sphere(Q, np.asarray(radii, float)) + B


def noise(truth):
    """σ of a 75 ms frame of the simulated beamtime, counting statistics of crystals, solvent and windows, 1/mm."""
    s = Scenario("")
    photons = s.beam_photons_s * s.transmissions["sample"] * s.exposure_s * s.sample_mm.value
    per_bin = photons * 2 * math.pi * Q * (Q[1] - Q[0]) / (2e-9 * math.pi / s.wavelength_m) ** 2
    return np.sqrt((truth + s.solvent_1_mm + s.window_flat / s.sample_mm.value) / per_bin)


def measured(truth, n, seed=0):
    sigma = np.tile(noise(truth), (n, 1))
    return truth + sigma * np.random.default_rng(seed).standard_normal(sigma.shape), sigma


def invert(*args, factor=FACTOR):
    """As a run does it."""
    return sizes.invert(*args, factor=factor, minimise=minimise)


def inverted(radii, c, n, seed=0):
    return invert(Q, *measured(curve(radii, c), n, seed), RADII)


def mean_of(radii, c):
    volume = np.asarray(c) * np.asarray(radii, float) ** 3
    return volume @ np.asarray(radii) / volume.sum(), 4 * math.pi / 3 * PER_NM3 * volume.sum()


# --- the curve of a bin ----------------------------------------------------------------------------------------------


def test_kernel_equals_sasmodels():
    from sasmodels.core import load_model
    from sasmodels.data import empty_data1D
    from sasmodels.direct_model import DirectModel

    calculator = DirectModel(empty_data1D(Q / 10), load_model("sphere"))
    for radius in (0.7, 2.22, 5.0):
        theirs = calculator(radius=10 * radius, sld=35.2, sld_solvent=0.0, scale=1.0, background=0.0) / 10  # 1/mm
        np.testing.assert_allclose(kernel(Q, np.array([radius]), FACTOR)[:, 0], theirs, rtol=2e-5, atol=1e-12)


# --- errors ----------------------------------------------------------------------------------------------------------

KNOWN = {
    "1.0 nm": ((1.0,), (100,)),
    "1.5 nm": ((1.5,), (25,)),
    "2.22 nm": ((2.22,), (25,)),
    "3.0 nm": ((3.0,), (5,)),
    "4.0 nm": ((4.0,), (0.5,)),
    "two sizes": ((1.5, 3.0), (50, 10)),
    "three clusters": CLUSTERS,
}


@pytest.mark.parametrize("case", KNOWN)
def test_errors_are_what_they_say(case):
    """Unbiased means, whose 68 % intervals hold 68 % of them; a one-sided noise makes it a little more or less."""
    radii, c = KNOWN[case]
    found = inverted(radii, c, 160)
    mean, volume = mean_of(radii, c)
    for column, truth in (("mean_nm", mean), ("volume_fraction", volume)):
        pulls = (found.value(column) - truth) / found.error(column)
        assert abs(pulls.mean()) < 0.3
        assert 0.58 < (np.abs(pulls) < 1).mean() < 0.82
    background = (found.value("background_1_mm") - B) / found.error("background_1_mm")
    assert abs(background.mean()) < 0.35
    assert found.value("chi2_red").mean() == pytest.approx(1, abs=4 * math.sqrt(2 / 190 / 160))
    groups = found.value("groups")
    if case == "two sizes":
        assert (groups == 2).mean() > 0.9
        assert not found.flagged("unresolved").any()
        assert found.value("width_nm").mean() == pytest.approx(0.7298, abs=5e-3)
    else:
        assert (groups == 1).mean() > 0.9
        assert found.flagged("unresolved").mean() > 0.8


def test_three_clusters_cannot_be_told_apart_but_one_that_moves_can_be_followed():
    """q ≤ 5 1/nm, 75 ms, 25 µmol/L: they are 0.07 and 0.08 nm apart. The one that moves keeps its amount of CdSe."""
    together = inverted(*CLUSTERS, 60)
    assert (together.value("single_fwhm_nm") > 0.12).all()
    assert not (together.value("two_sizes_nm") < 0.3).any()
    assert (together.value("groups") == 1).mean() > 0.9
    assert together.flagged("unresolved").mean() > 0.8
    for radius in CLUSTERS[0]:
        mean = inverted((radius,), (25 * (0.94 / radius) ** 3,), 100, seed=1).value("mean_nm")
        assert mean.std(ddof=1) < 0.015
        assert abs(mean.mean() - radius) < 0.015


@pytest.mark.parametrize(("radius", "c"), [(0.94, 100), (1.5, 25), (3.0, 5)])
@pytest.mark.parametrize(("distance", "maxima"), [(0.6, 1), (1.25, 2)])
def test_two_sizes_are_told_apart_from_the_distance_that_is_said(radius, c, distance, maxima):
    """Equal volumes with the σ of the frame; the intensities of the two are 15 to 1 and less."""
    sigma = noise(curve((radius,), (c,)))[None]
    single = invert(Q, curve((radius,), (c,))[None], sigma, RADII)
    half = 0.5 * distance * single.value("two_sizes_nm")[0]
    pair = radius + np.array([-half, half])
    both = invert(Q, curve(pair, c / 2 * (radius / pair) ** 3)[None], sigma, RADII)
    density = both.density[0]
    peaks = (density[1:-1] > density[:-2]) & (density[1:-1] >= density[2:]) & (density[1:-1] > 0.1 * density.max())
    assert peaks.sum() == maxima


def test_a_gaussian_distribution_of_resolved_width():
    """Number distribution 2.22 ± 0.13 nm: its volume-weighted moments are R⁴/R³ and so on, in closed form."""
    radius, s = 2.22, 0.13**2
    truth = 25 * FACTOR * gaussian_spheres(Q, np.array([radius]), np.array([s]))[0][0] + B
    found = invert(Q, *measured(truth, 150), RADII)
    third, fourth = radius**3 + 3 * radius * s, radius**4 + 6 * radius**2 * s + 3 * s * s
    fifth = radius**5 + 10 * radius**3 * s + 15 * radius * s * s
    mean = fourth / third
    assert not found.flagged("unresolved").any()
    for column, value in (
        ("mean_nm", mean),
        ("width_nm", math.sqrt(fifth / third - mean**2)),
        ("number_mean_nm", radius),
        ("volume_fraction", 6.97e-4),
    ):
        known = np.isfinite(found.value(column))
        assert known.mean() > 0.9
        bias = np.mean(found.value(column)[known]) - value
        assert abs(bias) < 0.5 * np.median(found.error(column)[known])


@pytest.mark.parametrize(("radius", "c", "relative"), [(2.22, 25, 0.06), (1.5, 25, 0.1), (2.22, 25, 0.2)])
def test_the_band_holds_the_true_density(radius, c, relative):
    """There is one maximum, as in truth; the band of one error holds two thirds of it and more, of two nine tenths."""
    s = (relative * radius) ** 2
    curve = c * FACTOR * gaussian_spheres(Q, np.array([radius]), np.array([s]))[0][0] + B
    number = np.exp(-((RADII - radius) ** 2) / (2 * s)) / math.sqrt(2 * math.pi * s)
    truth = c * PER_NM3 * 4 * math.pi / 3 * RADII**3 * number
    found = invert(Q, *measured(curve, 40), RADII)
    seen = truth > 0.1 * truth.max()
    off = np.abs(found.density - truth)[:, seen] / found.density_err[:, seen]
    assert (off < 1).mean() > 0.6
    assert (off < 2).mean() > 0.9
    assert np.median(found.density_err[:, seen]) < 0.25 * truth.max()
    inner, high = found.density[:, 1:-1], found.density[:, 1:-1] > 0.05 * found.density.max(axis=1, keepdims=True)
    maxima = (inner > found.density[:, :-2]) & (inner >= found.density[:, 2:]) & high
    assert (maxima.sum(axis=1) == 1).mean() > 0.9


# --- laws ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def series():
    truth = np.stack([curve((r,), (25,)) for r in (0.9, 1.4, 2.0, 2.6)])
    sigma = np.array([noise(t) for t in truth])
    return truth + sigma * np.random.default_rng(5).standard_normal(truth.shape), sigma


def same(one: SizeDistributions, other: SizeDistributions):
    for name in PER_FRAME:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.flags == other.flags


def test_alone_or_in_company_every_bit_is_the_same(series):
    together = invert(Q, *series, RADII)
    alone = [invert(Q, series[0][i : i + 1], series[1][i : i + 1], RADII) for i in (2, 0)]
    same(SizeDistributions.concatenate(alone), together.rows([2, 0]))


def test_units_scale(series):
    one = invert(Q, *series, RADII)
    brighter = invert(Q, 8 * series[0], 8 * series[1], RADII, factor=8 * FACTOR)
    np.testing.assert_allclose(brighter.value("mean_nm"), one.value("mean_nm"), rtol=1e-6)
    np.testing.assert_allclose(brighter.density, one.density, rtol=1e-4, atol=1e-6 * one.density.max())
    longer = invert(Q / 2, *series, 2 * RADII)
    np.testing.assert_allclose(longer.value("mean_nm"), 2 * one.value("mean_nm"), rtol=1e-6)
    np.testing.assert_allclose(longer.value("single_fwhm_nm"), 2 * one.value("single_fwhm_nm"), rtol=1e-4)
    np.testing.assert_allclose(longer.value("volume_fraction"), one.value("volume_fraction") / 8, rtol=1e-6)


def test_points_without_measurement_have_no_weight(series):
    intensity, sigma = (np.repeat(a[1:2], 3, axis=0) for a in series)
    intensity[0, 20:40], sigma[1, 20:40], sigma[2, 20:40] = np.nan, 0.0, np.inf
    intensity[1:, 20:40] = 1e6
    keep = np.r_[0:20, 40:200]
    found = invert(Q, intensity, sigma, RADII)
    other = invert(Q[keep], series[0][1:2, keep], series[1][1:2, keep], RADII)
    np.testing.assert_allclose(found.values, np.repeat(other.values, 3, axis=0), rtol=1e-4)


def test_without_signal_nothing_is_reported_but_how_little():
    sigma = np.tile(noise(np.zeros_like(Q)), (40, 1))
    empty = B + sigma * np.random.default_rng(2).standard_normal(sigma.shape)
    found = invert(Q, empty, sigma, RADII)
    assert found.flagged("weak").mean() > 0.95
    weak = found.flagged("weak")
    assert np.isnan(found.values[weak][:, :3]).all()
    assert np.isfinite(found.value("volume_fraction")).all()
    below = invert(Q, B - 0.5 * sigma[:1], sigma[:1], RADII)
    assert below.flags[0].startswith("weak")


def test_a_curve_that_no_spheres_make_is_said():
    sigma = np.full((1, Q.size), 1e-4)
    bragg = curve((2.0,), (25,)) + 0.05 * np.exp(-(((Q - 2.5) / 0.05) ** 2))
    assert "poor_fit" in invert(Q, bragg[None], sigma, RADII).flags[0]
    outside = invert(Q, curve((2.0,), (25,))[None], sigma, radius_grid(0.5, 1.5))
    assert {"poor_fit", "at_limit"} <= set(outside.flags[0].split("|"))


def test_no_particles_at_all_have_an_error():
    """A constant: in a part of the frames no particle is needed, which is no more certain than in the others."""
    found = invert(Q, *measured(np.full_like(Q, B), 60, seed=5), RADII)
    none = found.value("groups") == 0
    assert 3 < none.sum() < 30
    volume, error = found.value("volume_fraction"), found.error("volume_fraction")
    assert (error[none] > 0).all() and (np.abs(volume[none]) < 2 * error[none]).all()
    background = (found.value("background_1_mm") - B) / found.error("background_1_mm")
    assert np.abs(background[none]).mean() < 1.6
    assert found.flagged("weak")[none].all()


@pytest.mark.parametrize("case", ["2.22 nm", "two sizes"])
def test_the_bins_of_the_default_grid_do_not_limit_a_frame_of_75_ms(case):
    radii, c = KNOWN[case]
    assert not inverted(radii, c, 10).flagged("coarse_bins").any()
    coarse = invert(Q, *measured(curve(radii, c), 3), radius_grid(0.5, 6.0, 60, "linear"))
    assert coarse.flagged("coarse_bins").all()
    said = dict(size_rows(coarse))["size distributions, bins"]
    assert said.startswith("in 3 frames") and "more `bins`" in said


def test_too_few_points_are_not_inverted(series):
    intensity = series[0].copy()
    intensity[0, 9:] = np.nan
    found = invert(Q, intensity, series[1], RADII)
    assert found.flags[0] == "not_measured"
    assert all(np.isnan(getattr(found, name)[0]).all() for name in PER_FRAME)
    assert np.isfinite(found.values[1:, 0]).all()


def test_nonsense_is_refused(series):
    for radii in ((0.0, 5.0), (3.0, 2.0)):
        with pytest.raises(BadInput, match="two increasing positive"):
            radius_grid(*radii)
    with pytest.raises(BadInput, match="at least 3"):
        radius_grid(1, 2, 2)
    with pytest.raises(BadInput, match="geometric or linear"):
        radius_grid(1, 2, 50, "cubic")
    with pytest.raises(BadInput, match="frames × bins"):
        invert(Q[1:], *series, RADII)
    with pytest.raises(BadInput, match="q must be"):
        invert(Q - Q[0], *series, RADII)
    with pytest.raises(BadInput, match="contrast"):
        invert(Q, *series, RADII, factor=0.0)
    with pytest.raises(BadInput, match="radii must be"):
        invert(Q, *series, RADII[::-1])
