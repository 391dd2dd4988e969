"""The model of a curve: names, ties, derivatives against finite differences, smearing against a fine integral."""

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.model_spec import ModelSpec, Population, from_text, to_text
from saxs_pipeline.science import rebinning
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.types import BadInput
from tests.spheres import gaussian_model, two_populations

Q = np.linspace(0.1, 4, 70)
VARIANTS = {
    "one": gaussian_model(2e-3),
    "lognormal": gaussian_model(2e-3, distribution="lognormal"),
    "porod": gaussian_model(2e-3, power_law=(4.0, 4.0)),
    "power law": gaussian_model(2e-3, power_law=(3.0, 4.5), constant=1e-3),
    "hard spheres": gaussian_model(2e-3, volume_fraction=(0.02, 0.4), shell_nm=0.5),
    "smeared": gaussian_model(2e-3, sigma_q_1_nm=0.08),
    "two": two_populations(2e-3),
    "everything": two_populations(2e-3, power_law=(3.0, 4.5), volume_fraction=(0.02, 0.4), sigma_q_1_nm=0.05),
}


def values_of(model):
    known = {
        "c_nc": 5.0,
        "agglomerates_c": 20.0,
        "r_nm": 2.2,
        "agglomerates_r": 1.4,
        "sigma2": 0.05,
        "background": 1e-3,
    }
    known |= {"power_law": 2e-3, "exponent": 3.6, "volume_fraction": 0.1}
    row = [next(v for k, v in sorted(known.items(), key=lambda i: -len(i[0])) if k in name) for name in model.columns]
    return np.array([row, [1.1 * x for x in row]])


@pytest.mark.parametrize("name", VARIANTS)
def test_derivatives_equal_finite_differences(name):
    model = VARIANTS[name]
    values = values_of(model)
    design = model.design(Q, values, np.ones(values.shape, dtype=bool))
    for k, column in enumerate(model.columns):
        step = np.zeros(values.shape)
        step[:, k] = 1e-4 * np.abs(values[:, k])
        numeric = (model.curve(Q, values + step) - model.curve(Q, values - step)) / (2 * step[:, k, None])
        if column == "background_1_mm" and model.constant is not None:
            continue
        scale = np.abs(numeric).max()
        np.testing.assert_allclose(design.columns[:, k], numeric, rtol=0, atol=2e-5 * scale, err_msg=column)


def test_smearing_is_the_convolution_with_a_gaussian():
    for width in (0.02, 0.1, 0.25):
        sharp, smeared = gaussian_model(1.0), gaussian_model(1.0, sigma_q_1_nm=width)
        values = np.array([[1.0, 3.0, 0.02**2, 0.0]])
        deviates = np.linspace(-7, 7, 2001)
        weights = np.exp(-0.5 * deviates**2) / np.exp(-0.5 * deviates**2).sum()
        wanted = np.array([weights @ sharp.curve(np.abs(q + width * deviates), values)[0] for q in Q])
        np.testing.assert_allclose(smeared.curve(Q, values)[0], wanted, rtol=1e-6)


def test_wide_bins_smear_by_their_own_width():
    """Means of a sharp curve over logarithmic bins are the curve smeared by √(w²/12) of each bin, not of their mean."""
    q = np.linspace(0.1, 5.0, 3000)
    bins = rebinning.grid(q, 60, logarithmic=True)
    number = np.diff(bins.starts, append=len(q))
    values = np.array([[1.0, 2.2, 0.05**2, 0.0]])
    wanted = np.add.reduceat(gaussian_model(1.0).curve(q, values)[0], bins.starts) / number
    sigma = number * (q[1] - q[0]) / np.sqrt(12)
    each = tuple(zip(bins.q_nm.tolist(), sigma.tolist(), strict=True))
    off = []
    for smearing in (each, float(sigma.mean())):
        smeared = gaussian_model(1.0, sigma_q_1_nm=smearing).curve(bins.q_nm, values)[0]
        off.append(np.abs(smeared - wanted) * bins.q_nm**4)
    assert off[0].max() < 0.1 * off[1].max()
    assert from_text(to_text(gaussian_model(1.0, sigma_q_1_nm=each).spec)).sigma_q_1_nm == each


def test_curve_is_the_sum_of_its_parts():
    model, values = VARIANTS["two"], values_of(VARIANTS["two"])
    parts = []
    for k in (0, 1):
        alone = CurveModel.of(model.alone(k))
        columns = model.columns_of(alone, k)
        parts.append(alone.curve(Q, values[:, columns]) - values[:, 3:4])
    np.testing.assert_allclose(model.curve(Q, values), parts[0] + parts[1] + values[:, 3:4], rtol=1e-12)
    absent = values.copy()
    absent[:, 4:7] = np.nan
    np.testing.assert_allclose(model.curve(Q, absent), parts[0] + values[:, 3:4], rtol=1e-12)


def test_ranges_are_held_at_each_of_their_ends_and_at_both():
    model = gaussian_model(1.0, power_law=(3.0, 4.5), volume_fraction=(0.02, 0.4))
    ranges = [(one.power_law, one.volume_fraction) for one in model.at_limits]
    exponents, fractions = ([(3.0, 3.0), (4.5, 4.5), (3.0, 4.5)], [(0.02, 0.02), (0.4, 0.4), (0.02, 0.4)])
    wanted = {(p, f) for p in exponents for f in fractions} - {((3.0, 4.5), (0.02, 0.4))}
    assert len(ranges) == 8 and set(ranges) == wanted
    assert gaussian_model(1.0, power_law=(4.0, 4.0)).at_limits == ()


def test_names_of_the_columns():
    assert gaussian_model(1.0).columns == ("c_nc_umol_L", "r_nm", "sigma2_nm2", "background_1_mm")
    assert VARIANTS["everything"].columns == (
        "crystals_c_nc_umol_L", "crystals_r_nm", "crystals_sigma2_nm2", "background_1_mm",
        "agglomerates_c_nc_umol_L", "agglomerates_r_nm", "agglomerates_sigma2_nm2",
        "power_law_1_mm", "exponent", "volume_fraction",
    )  # fmt: skip
    assert VARIANTS["two"].sizes == (
        "crystals_radius", "crystals_sigma", "agglomerates_radius", "agglomerates_sigma",
    )  # fmt: skip


def test_fixed_and_tied_parameters_are_what_they_should_be():
    model = two_populations(
        1.0,
        fixed=(("agglomerates_radius", 1.5),),
        tied=(("crystals_sigma", "0.1*crystals_radius"), ("agglomerates_sigma", "crystals_radius/20")),
    )
    assert model.free == (0,)
    psi = model.expand(np.array([[2.0, 3.0]]))
    np.testing.assert_allclose(psi, [[2, 3], [0.04, 0.09], [1.5, 1.5], [0.01, 0.0225]])
    ties = model.ties(np.array([[2.0, 3.0]]), model.free)[:, 0]
    np.testing.assert_allclose(ties, [[1, 1], [0.04, 0.06], [0, 0], [0.01, 0.015]], atol=1e-9)


@pytest.mark.parametrize(
    ("expression", "of_s"),
    [
        ("crystals_sigma", lambda s: s),
        ("2 * crystals_sigma / 3", lambda s: 4 / 9 * s),
        ("sqrt(crystals_sigma**2 + 0.03)", lambda s: s + 0.03),
        ("crystals_sigma + 0.1", lambda s: np.where(s >= 0, (np.sqrt(np.abs(s)) + 0.1) ** 2, np.nan)),
        ("0.1*sqrt(crystals_radius - 2)", lambda s: np.full(s.shape, np.nan)),
    ],
)
def test_widths_are_tied_through_zero(expression, of_s):
    """σ = √s, for s < 0 too: what the square of the expression then is, is polynomial in s, or it has no value."""
    model = two_populations(1.0, tied=(("agglomerates_sigma", expression),))
    s = np.array([0.04, 1e-5, 0.0, -1e-5, -0.02])
    psi = model.expand(np.stack([np.full(5, 1.9), s, np.full(5, 1.5)]))
    np.testing.assert_allclose(psi[3], of_s(s), rtol=1e-14, atol=1e-17)
    radius = two_populations(1.0, tied=(("agglomerates_radius", "30 * crystals_sigma"),))
    found = radius.expand(np.stack([np.full(5, 1.9), s, s]))[2]
    np.testing.assert_allclose(found, np.where(s >= 0, 30 * np.sqrt(np.abs(s)), np.nan), rtol=1e-14)


def test_a_population_alone_keeps_what_is_its_own():
    model = two_populations(
        1.0,
        power_law=(4.0, 4.0),
        fixed=(("agglomerates_radius", 1.5),),
        tied=(("crystals_sigma", "0.1*crystals_radius"), ("agglomerates_sigma", "crystals_radius/20")),
    )
    crystals, agglomerates = (CurveModel.of(model.alone(k)) for k in (0, 1))
    assert (crystals.fixed, crystals.tied) == ((), (("sigma", "0.1*radius"),))
    assert (agglomerates.fixed, agglomerates.tied) == ((("radius", 1.5),), ())
    assert model.columns_of(agglomerates, 1) == [4, 5, 6, 3, 7, 8]


def test_a_population_alone_is_told_by_whole_names():
    pair = (Population(1.0, (1.8, 5.0), (0.05, 0.8), "nc"), Population(1.0, (0.8, 1.8), (0.03, 0.5), "nc_small"))
    fixed, tied = (
        (("nc_small_radius", 1.4),),
        (("nc_sigma", "exp(-nc_radius)"), ("nc_small_sigma", "0.1*nc_small_radius")),
    )
    model = CurveModel(pair, fixed=fixed, tied=tied)
    large, small = (CurveModel.of(model.alone(k)) for k in (0, 1))
    assert (large.fixed, large.tied) == ((), (("sigma", "exp(-radius)"),))
    assert (small.fixed, small.tied) == ((("radius", 1.4),), (("sigma", "0.1*radius"),))
    across = CurveModel(pair, tied=(("nc_sigma", "nc_small_radius + nc_radius/20"), ("nc_small_sigma", "nc_radius/20")))
    assert across.alone(0).tied == across.alone(1).tied == ()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"fixed": (("width", 0.1),)}, "choose from radius, sigma"),
        ({"tied": (("sigma", "0.1*size"),)}, "size, to which sigma is tied, is unknown"),
        ({"fixed": (("sigma", 0.1),), "tied": (("sigma", "radius"),)}, "fixed and tied"),
        ({"tied": (("sigma", "sigma"),)}, "is tied itself"),
    ],
)
def test_what_cannot_be_held_or_tied_is_refused(more, message):
    with pytest.raises(BadInput, match=message):
        gaussian_model(1.0, **more)


@pytest.mark.parametrize("name", VARIANTS)
def test_text_keeps_every_bit(name):
    spec = replace(VARIANTS[name].spec, constant=0.1 + 0.2)
    assert from_text(to_text(spec)) == spec


@pytest.mark.parametrize("text", ["[]", "{}", '{"populations": [{}]}', '{"populations": [], "more": 1}', "nonsense"])
def test_other_texts_are_no_model(text):
    with pytest.raises(ValueError):
        from_text(text)


def test_a_spec_is_plain_data():
    assert type(VARIANTS["two"].spec) is ModelSpec
    assert VARIANTS["two"].spec.populations[1] == Population(2e-3, (0.8, 1.8), (0.03, 0.5), "agglomerates")
