from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.science.calibration import StandardMeasurement, glassy_carbon_scale, water_scale
from saxs_pipeline.science.standards import SRM_3600_1_MM, SRM_3600_Q_NM
from saxs_pipeline.types import BadInput, Uncertain

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


def test_the_uncertainty_is_made_of_its_contributions():
    known = {"cross_section": (1.65e-3, 1.65e-5), "thickness_mm": (2.0, 0.01), "transmissions_rel": (0.004, 0.0)}
    found = scale(measure(np.random.default_rng(9)), **known)
    parts = dict(found.contributions)
    assert (parts["cross section"], parts["thickness"]) == pytest.approx((0.01, 0.005))
    assert "transmission of empty cell" not in parts
    assert found.factor.relative == pytest.approx(np.sqrt(sum(x**2 for x in parts.values())), rel=1e-12)


def test_the_drift_is_the_change_across_the_window():
    flat = np.full_like(Q, 1e-9)
    tilted = (1 + 0.002 * Q, flat), (0 * Q, flat), np.ones_like(Q)
    found = scale(tilted)
    inside = (Q >= 1) & (Q <= 4)
    assert found.drift == pytest.approx(0.002 * np.ptp(Q[inside]) / (1 + 0.002 * Q[inside]).mean(), rel=1e-9)


def test_the_same_file_twice_is_refused():
    water, _, counts = measure(np.random.default_rng(7))
    with pytest.raises(BadInput, match="not above zero"):
        scale((water, water, counts))


# --- glassy carbon ---------------------------------------------------------------------------------------------------

FACTOR, THICKNESS = 0.7, 1.055
CERTIFIED = (SRM_3600_Q_NM, SRM_3600_1_MM)


def carbon(rng, photons=200.0, over=0.02, times=1.0, curve=CERTIFIED):
    """A photon-counting measurement of a curve (q, R), times a distortion: `photons` per pixel and 1/mm.

    over: the background as a share of 1/mm. σ are estimated from the counts themselves, as a detector does.
    """
    q, known = curve
    pixels = np.round(3 + 60 * q)
    strength = photons * pixels
    counted = [rng.poisson(strength * expected) for expected in (times * known + over, np.full_like(q, over))]
    unit = strength * FACTOR / THICKNESS  # counts per normalised intensity: K·(difference)/d is the cross section
    curves = [(n / unit, np.sqrt(n) / unit) for n in counted]
    return StandardMeasurement(q, *curves, pixels=pixels, thickness_mm=Uncertain(THICKNESS))


def counting(found):
    return found.factor.value * dict(found.contributions)["counting"]


@pytest.mark.parametrize("photons", [2.0, 200.0])
def test_the_certified_curve_gives_its_factor(photons):
    rng = np.random.default_rng(20)
    found = [glassy_carbon_scale(carbon(rng, photons)) for _ in range(200)]
    pulls = np.array([(one.factor.value - FACTOR) / counting(one) for one in found])
    assert abs(pulls.mean()) < 0.15
    assert 0.9 < pulls.std() < 1.1
    assert np.mean([one.chi2_red for one in found]) == pytest.approx(1, abs=0.05)
    assert np.std([one.slope_over_sigma for one in found]) == pytest.approx(1, abs=0.15)
    assert all(abs(one.factor.value - FACTOR) < 3 * one.factor.error for one in found)


def test_weights_from_the_counts_of_each_bin_would_be_wrong():
    """Each bin weighed by its own inverse variance: what the test above must be able to see."""
    rng, pulls = np.random.default_rng(20), []
    for _ in range(200):
        y, sigma = carbon(rng, 1.0).difference()
        share = (y * SRM_3600_1_MM / sigma**2).sum() / (SRM_3600_1_MM**2 / sigma**2).sum()
        pulls.append((1 / share - FACTOR) / (np.sqrt(1 / (SRM_3600_1_MM**2 / sigma**2).sum()) / share**2))
    assert np.mean(pulls) > 0.5


def test_the_weights_are_nearly_the_best():
    """Against the exact variances: no more than 1 % more uncertain than the best that is possible."""
    found = glassy_carbon_scale(carbon(np.random.default_rng(21)))
    strength = 200.0 * np.round(3 + 60 * SRM_3600_Q_NM)
    variance = (SRM_3600_1_MM + 2 * 0.02) / strength
    best = 1 / np.sqrt((SRM_3600_1_MM**2 / variance).sum())
    assert dict(found.contributions)["counting"] == pytest.approx(best, rel=0.01)


def test_the_certificate_counts_in_full_however_many_bins_there_are():
    found = glassy_carbon_scale(carbon(np.random.default_rng(22), photons=1e6))
    assert found.factor.relative == pytest.approx(0.02579, rel=1e-3)
    assert dict(found.contributions)["certificate"] == pytest.approx(0.02579, rel=1e-3)


def test_thickness_and_transmissions_of_carbon():
    """Background a third of the whole: 1 % of the carbon's transmission is 1.5 %, of the background's 0.5 %."""
    n = np.full_like(SRM_3600_Q_NM, 1e-9)
    measured = StandardMeasurement(
        SRM_3600_Q_NM, (3 * SRM_3600_1_MM, n), (SRM_3600_1_MM, n), n + 1, Uncertain(2.0, 0.02), (0.01, 0.01)
    )
    parts = dict(glassy_carbon_scale(measured).contributions)
    assert parts["thickness"] == pytest.approx(0.01)
    assert parts["transmission of glassy carbon"] == pytest.approx(0.015, rel=1e-6)
    assert parts["transmission of background"] == pytest.approx(0.005, rel=1e-6)
    assert glassy_carbon_scale(measured).factor.value == pytest.approx(1.0, rel=1e-9)


def test_other_q_than_the_certified_ones():
    """A log-linear curve through the certified values differs from ours by less than 0.1 % on average."""
    q = np.linspace(0.05, 4.0, 300)
    known = np.exp(np.interp(np.log(q), np.log(SRM_3600_Q_NM), np.log(SRM_3600_1_MM)))
    found = glassy_carbon_scale(carbon(np.random.default_rng(23), 1e5, curve=(q, known)))
    assert found.factor.value == pytest.approx(FACTOR, rel=1e-3)
    assert SRM_3600_Q_NM[0] <= found.window_nm[0] < 0.1
    assert 2.4 < found.window_nm[1] <= SRM_3600_Q_NM[-1]
    narrow = glassy_carbon_scale(carbon(np.random.default_rng(23), 1e5, curve=(q, known)), (0.5, 1.5))
    assert narrow.factor.value == pytest.approx(FACTOR, rel=2e-3)
    assert 0.5 <= narrow.window_nm[0] < narrow.window_nm[1] <= 1.5


def test_another_shape_is_refused_where_it_is_clear_and_large():
    rng = np.random.default_rng(24)
    drifting, waving = 1 + 0.04 * (SRM_3600_Q_NM - 1), 1 + 0.06 * np.sin(9 * SRM_3600_Q_NM)
    for times in (drifting, waving):
        with pytest.raises(BadInput, match="not the certified shape"):
            glassy_carbon_scale(carbon(rng, 2000.0, times=times))
    small = glassy_carbon_scale(carbon(rng, 1e5, times=1 + 0.01 * (SRM_3600_Q_NM - 1)))
    assert small.slope_over_sigma > 10  # clear, but within what the certificate leaves open
    assert small.drift == pytest.approx(0.024, abs=0.004)
    noisy = glassy_carbon_scale(carbon(rng, 0.5, times=drifting))
    assert abs(noisy.slope_over_sigma) < 3  # large, but perhaps chance
    assert abs(noisy.drift) > 0.05
    assert glassy_carbon_scale(carbon(rng, 1.0, times=waving)).factor.value == pytest.approx(FACTOR, rel=0.15)


def test_what_is_no_carbon_is_refused():
    rng = np.random.default_rng(25)
    good = carbon(rng, over=0.5)
    swapped = replace(good, standard=good.background, background=good.standard)
    same = replace(good, background=good.standard)
    hardly = replace(good, background=(0.95 * good.standard[0], good.standard[1]))
    for measured in (swapped, same, hardly):
        with pytest.raises(BadInput, match="which files"):
            glassy_carbon_scale(measured)


def test_windows_without_certified_values_are_refused():
    measured = carbon(np.random.default_rng(26))
    for window in ((0.05, 1.0), (0.2, 3.0), (4.0, 6.0)):
        with pytest.raises(BadInput, match=r"certified are 0\.08276-2\.474"):
            glassy_carbon_scale(measured, window)
    with pytest.raises(BadInput, match="usable q bins, 10 are needed"):
        glassy_carbon_scale(measured, (0.1, 0.12))
    far = np.linspace(2.5, 9.0, 100)
    with pytest.raises(BadInput, match="holds 0 usable"):
        glassy_carbon_scale(carbon(np.random.default_rng(26), curve=(far, np.full_like(far, 0.4))))


def test_every_message_is_one_line():
    with pytest.raises(BadInput) as caught:
        glassy_carbon_scale(carbon(np.random.default_rng(26)), (0.1, 0.12))
    assert "\n" not in str(caught.value)
