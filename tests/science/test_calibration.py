import numpy as np
import pytest

from saxs_pipeline.science.calibration import water_scale
from saxs_pipeline.types import BadInput, StandardMeasurement, Uncertain

Q = np.linspace(0.1, 5, 200)
WINDOW = (1.0, 4.0)


def measure(rng, slope=0.0, relative=0.02, level=1.65e-3, k=4.0, d=2.0):
    """Normalised water and empty-cell curves for a true scale factor k and thickness d."""
    glass = 3e-3 * Q**-2
    water = level * (1 + slope * (Q - 2.5)) * d / k
    sigma = relative * np.full_like(Q, level * d / k)
    return (
        (glass + water + rng.normal(0, sigma), sigma),
        (glass + rng.normal(0, sigma), sigma),
        np.round(Q * 300) + 1,
    )


def scale(measured, cross_section=(1.65e-3, 0.0), window_nm=WINDOW, thickness_mm=(2.0, 0.0), **known):
    standard = StandardMeasurement(Q, *measured, Uncertain(*thickness_mm), **known)
    return water_scale(standard, Uncertain(*cross_section), window_nm)


def test_the_factor_comes_back_with_an_honest_error():
    rng = np.random.default_rng(5)
    pulls = np.array([(s.factor.value - 4.0) / s.factor.error for s in (scale(measure(rng)) for _ in range(400))])
    assert abs(pulls.mean()) < 0.2
    assert pulls.std() == pytest.approx(1.0, abs=0.12)


def test_uncertainties_of_cross_section_and_thickness_add_in_quadrature():
    measured = measure(np.random.default_rng(5))
    statistical = scale(measured).factor.relative
    both = scale(measured, cross_section=Uncertain(1.65e-3, 1.65e-5), thickness_mm=Uncertain(2.0, 0.01)).factor
    assert both.relative == pytest.approx(np.sqrt(statistical**2 + 0.01**2 + 0.005**2), rel=1e-9)


def test_transmissions_scale_each_curve_as_a_whole():
    """Water twice the empty cell: 1 % of water's transmission is 2 % of the difference, 1 % of the cell's is 1 %."""
    flat = (np.full_like(Q, 2.0), np.full_like(Q, 1e-9)), (np.full_like(Q, 1.0), np.full_like(Q, 1e-9)), np.ones_like(Q)
    for transmissions, expected in (((0.01, 0.0), 0.02), ((0.0, 0.01), 0.01), ((0.01, 0.01), np.hypot(0.02, 0.01))):
        assert scale(flat, transmissions_rel=transmissions).factor.relative == pytest.approx(expected, rel=1e-6)


def test_a_window_that_is_not_flat_is_refused():
    rng = np.random.default_rng(6)
    with pytest.raises(BadInput, match="not flat"):
        scale(measure(rng, slope=0.05, relative=0.005))
    accepted = scale(measure(rng, slope=0.0, relative=0.005))
    assert abs(accepted.slope_over_sigma) < 4
    assert accepted.chi2_red == pytest.approx(1.0, abs=0.4)


def test_swapped_files_and_empty_windows_are_refused():
    water, empty, counts = measure(np.random.default_rng(7))
    with pytest.raises(BadInput, match="which files"):
        scale((empty, water, counts))
    with pytest.raises(BadInput, match="usable q bins"):
        scale((water, empty, counts), window_nm=(6.0, 7.0))


def test_bins_without_pixels_do_not_count():
    water, empty, counts = measure(np.random.default_rng(8))
    water[0][60:80], counts[60:80] = np.nan, 0
    assert scale((water, empty, counts)).factor.value == pytest.approx(4.0, rel=0.02)
