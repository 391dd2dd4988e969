"""Volume, cations per crystal and yield: the paper's numbers; propagated errors against Monte Carlo."""

import numpy as np
import pytest

from saxs_pipeline.science.distributions import mean_volume
from saxs_pipeline.science.quantities import cations_per_crystal, derive, volume_fraction, yield_fraction
from saxs_pipeline.types import Uncertain

TRUTH = np.array([25.0, 2.22, 0.13**2, 1e-3])
ERRORS = np.array([0.5, 0.02, 0.0015, 2e-5])
CORRELATION = np.array([[1, -0.8, 0.5, 0.1], [-0.8, 1, -0.7, -0.2], [0.5, -0.7, 1, 0.3], [0.1, -0.2, 0.3, 1]])
COVARIANCE = CORRELATION * np.outer(ERRORS, ERRORS)


def derived(values=TRUTH, covariance=COVARIANCE, **changes):
    options = {
        "lattice_nm": Uncertain(0.608, 0.001),
        "cations_per_cell": 4,
        "cation_mmol_L": Uncertain(27.0, 0.27),
        "scale_rel": 0.03,
    }
    return derive(np.atleast_2d(values), np.atleast_3d(covariance.T).T, **(options | changes))


def test_numbers_of_the_paper():
    volume = mean_volume(2.22, 0.13**2)
    assert volume == pytest.approx(46.301, abs=5e-4)
    cadmium = cations_per_crystal(volume, 0.608)
    assert cadmium == pytest.approx(824.03, abs=0.01)
    for supplied, share in ((27.0, 0.763), (25.5, 0.8079), (18.6, 1.1076)):
        assert yield_fraction(25.0, cadmium, supplied) == pytest.approx(share, abs=5e-4)


def test_volume_fraction_of_the_reference_case():
    assert volume_fraction(25.0, mean_volume(2.22, 0.13**2)) == pytest.approx(6.97e-4, rel=1e-3)


def test_mean_volume_equals_average_of_samples():
    samples = np.random.default_rng(1).normal(2.0, 0.4, 400_000)
    assert mean_volume(2.0, 0.16) == pytest.approx(np.mean(4 * np.pi / 3 * samples**3), rel=4e-3)


def test_statistical_errors_equal_monte_carlo():
    draws = np.random.default_rng(2).multivariate_normal(TRUTH, COVARIANCE, 200_000)
    c, radius, variance, _ = draws.T
    shares = yield_fraction(c, cations_per_crystal(mean_volume(radius, variance), 0.608), 27.0)
    result = derived()
    assert result.yield_.statistical[0] == pytest.approx(shares.std(), rel=0.01)
    spread = np.cov(np.stack([radius, np.sqrt(variance), c]))
    scale = np.sqrt(np.outer(np.diag(spread), np.diag(spread)))
    np.testing.assert_allclose(result.covariance[0] / scale, spread / scale, atol=0.02)
    # the errors of c and R nearly cancel in the yield: without the covariance it would be far too large
    naive = np.hypot(ERRORS[0] / 25, 3 * ERRORS[1] / 2.22) * result.yield_.value[0]
    assert result.yield_.statistical[0] < 0.7 * naive


def test_estimates_and_systematic_errors():
    result = derived()
    assert result.radius_nm.value[0] == 2.22
    assert result.radius_nm.statistical[0] == pytest.approx(0.02)
    assert result.radius_nm.systematic[0] == 0
    assert result.sigma_nm.value[0] == pytest.approx(0.13)
    assert result.sigma_nm.statistical[0] == pytest.approx(0.0015 / 0.26)
    assert result.c_nc_umol_L.systematic[0] == pytest.approx(0.75)
    assert result.background_1_mm.statistical[0] == pytest.approx(2e-5)
    relative = result.yield_.systematic[0] / result.yield_.value[0]
    assert relative == pytest.approx(np.sqrt(0.03**2 + 0.01**2 + (3 * 0.001 / 0.608) ** 2), rel=1e-12)
    assert not result.sigma_is_limit[0]


def test_systematic_yield_error_equals_monte_carlo():
    rng = np.random.default_rng(3)
    scale, supplied, lattice = (rng.normal(v, e, 200_000) for v, e in ((1, 0.03), (27.0, 0.27), (0.608, 0.001)))
    shares = yield_fraction(25.0 * scale, 4 * mean_volume(2.22, 0.13**2) / lattice**3, 1.0) / supplied
    assert derived().yield_.systematic[0] == pytest.approx(shares.std(), rel=0.01)


@pytest.mark.parametrize("variance", [0.0025, 0.0, -0.002])
def test_unresolved_width_is_an_upper_limit(variance):
    result = derived(np.array([25.0, 2.22, variance, 1e-3]))
    assert result.sigma_is_limit[0]
    assert result.sigma_nm.value[0] == pytest.approx(np.sqrt(max(variance, 0) + 0.003))
    assert np.isnan(result.sigma_nm.statistical[0])
    assert np.isnan(result.covariance[0, 1]).all()
    assert np.isfinite(result.covariance[0][np.ix_([0, 2], [0, 2])]).all()
    assert np.isfinite(result.yield_.statistical[0])


def test_a_frame_without_fit_is_nan_and_leaves_its_neighbour_alone():
    values = np.stack([TRUTH, np.full(4, np.nan)])
    covariance = np.stack([COVARIANCE, np.full((4, 4), np.nan)])
    result = derive(
        values, covariance, lattice_nm=0.608, cations_per_cell=4, cation_mmol_L=Uncertain(27.0), scale_rel=0.0
    )
    for name in ("radius_nm", "sigma_nm", "c_nc_umol_L", "yield_", "background_1_mm"):
        estimate = getattr(result, name)
        assert all(np.isnan(part[1]) and np.isfinite(part[0]) for part in estimate)
    assert result.yield_.value[0] == pytest.approx(0.763, abs=5e-4)
    assert not result.sigma_is_limit.any()
