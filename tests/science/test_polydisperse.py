"""⟨P⟩ of other distributions and of hard spheres: against quadrature, sasmodels, moments and finite differences."""

import math

import numpy as np
import pytest
from scipy.integrate import simpson

from saxs_pipeline.science import distributions
from saxs_pipeline.science.distributions import gaussian_moments, schulz_moments_by
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor, sphere
from saxs_pipeline.science.polydisperse import RULES, average, hindered, integrate
from saxs_pipeline.science.structurefactors import hard_spheres

CONTRAST = 35.2e-6
NAMES = ("gaussian", "lognormal", "schulz")


def one(name, q, radius, variance):
    return [part[0] for part in average(name, q, np.array([radius]), np.array([variance]))]


def quadrature(name, q, radius, variance):
    """∫ density · P dR by the trapezoid rule in ln R, reaching far into the tail that R⁶ weights."""
    relative = math.sqrt(variance) / radius
    r = radius * np.exp(np.linspace(-12 * relative, 14 * relative + 6 * relative**2, 40_001))
    density = getattr(distributions, f"{name}_density")(r, radius, variance)
    return np.array([np.trapezoid(density * sphere(np.array([x]), r)[:, 0] * r, np.log(r)) for x in q])


@pytest.mark.parametrize("name", ["lognormal", "schulz"])
@pytest.mark.parametrize("relative_width", [0.02, 0.1, 0.2, 0.35])
def test_average_equals_the_integral_over_the_density(name, relative_width):
    q = np.geomspace(5e-3, 6, 90)
    variance = (relative_width * 2.2) ** 2
    np.testing.assert_allclose(one(name, q, 2.2, variance)[0], quadrature(name, q, 2.2, variance), rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("relative_width", "points", "reach"), [(0.06, 80, 8), (0.15, 200, 20)])
def test_sasmodels_agrees(name, relative_width, points, reach):
    """80 points over 8 σ, more where a broad lognormal goes on; its parameters are the median and the width of ln R."""
    from sasmodels.core import load_model
    from sasmodels.direct_model import call_kernel

    q, radius, sigma, c = np.linspace(0.05, 5.0, 200), 2.22, relative_width * 2.22, 25.0
    width = math.sqrt(math.log1p(relative_width**2)) if name == "lognormal" else relative_width
    center = radius / math.sqrt(1 + relative_width**2) if name == "lognormal" else radius
    fraction = c * 6.02214076e-7 * distributions.mean_volume(radius, sigma**2, name)
    kernel = load_model("sphere", dtype="double", platform="dll").make_kernel([q / 10])
    per_cm = call_kernel(
        kernel,
        {
            "scale": fraction, "background": 0.0, "sld": CONTRAST * 1e6, "sld_solvent": 0.0, "radius": 10 * center,
            "radius_pd": width, "radius_pd_n": points, "radius_pd_nsigma": reach, "radius_pd_type": name,
        },
    )  # fmt: skip
    ours = intensity_factor(CONTRAST) * c * one(name, q, radius, sigma**2)[0]
    np.testing.assert_allclose(ours, 0.1 * per_cm, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variance", [3.6, 0.4, 0.03, 1e-5, -0.004])
def test_derivatives_equal_finite_differences(name, variance):
    q, radius = np.linspace(0.02, 5, 60), 1.9
    h = 2e-3 * min(1.0, abs(variance) / 0.004)

    def richardson(f, h):
        coarse, fine = ((f(k) - f(-k)) / (2 * k) for k in (h, h / 2))
        return (4 * fine - coarse) / 3

    _, by_radius, by_variance = one(name, q, radius, variance)
    numeric = richardson(lambda k: one(name, q, radius + k, variance)[0], 2e-3)
    np.testing.assert_allclose(by_radius, numeric, rtol=0, atol=1e-7 * np.abs(by_radius).max())
    numeric = richardson(lambda k: one(name, q, radius, variance + 0.1 * k)[0], h) / 0.1
    np.testing.assert_allclose(by_variance, numeric, rtol=0, atol=2e-6 * np.abs(by_variance).max())


@pytest.mark.parametrize("name", NAMES)
def test_small_q_is_the_sixth_moment(name):
    radius, relative = 2.0, 0.2
    sixth = {
        "gaussian": gaussian_moments(radius, (relative * radius) ** 2)[6],
        "schulz": schulz_moments_by(radius, (relative * radius) ** 2, 6)[0][6],
        "lognormal": radius**6 * (1 + relative**2) ** 15,
    }
    forward = one(name, np.array([0.0, 1e-5]), radius, (relative * radius) ** 2)[0]
    np.testing.assert_allclose(forward, (4 * math.pi / 3) ** 2 * sixth[name], rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_moments_and_mean_volume_are_those_of_the_density(name):
    radius, variance = 2.0, 0.3**2
    r = np.linspace(0.2, 6, 200_001)
    density = getattr(distributions, f"{name}_density")(r, radius, variance)
    found = [np.trapezoid(density * r**k, r) for k in (0, 1, 2, 3)]
    np.testing.assert_allclose(found[:3], [1, radius, radius**2 + variance], rtol=1e-7)
    assert distributions.mean_volume(radius, variance, name) == pytest.approx(4 * math.pi / 3 * found[3], rel=1e-7)
    step = 1e-5
    up, down = (distributions.mean_volume(radius + s, variance, name) for s in (step, -step))
    by_radius, by_variance = distributions.mean_volume_by(radius, variance, name)
    assert by_radius == pytest.approx((up - down) / (2 * step), rel=1e-8)
    up, down = (distributions.mean_volume(radius, variance + s, name) for s in (step, -step))
    assert by_variance == pytest.approx((up - down) / (2 * step), rel=1e-8)


def test_all_distributions_agree_where_narrow_and_continue_below_zero():
    q = np.linspace(0.05, 5, 100)
    for variance in (1e-6, -1e-6, -1e-3):
        reference = gaussian_spheres(q, np.array([2.0]), np.array([variance]))[0][0]
        for name in NAMES:
            difference = (
                np.abs(one(name, q, 2.0, variance)[0] - reference) / np.maximum.accumulate(reference[::-1])[::-1]
            )
            assert difference.max() < 1e3 * variance**2 + 1e-9, (name, variance)


@pytest.mark.parametrize("name", ["gaussian", "schulz"])
def test_rule_of_integration_equals_the_closed_form(name):
    q, radius = np.linspace(0.05, 5, 80), np.array([1.0, 2.0, 4.0, 2.0])
    variance = np.array([0.1, 0.2, 0.3, 1e-3]) ** 2

    def spheres(q, r, _):
        return (sphere(q, r),)

    closed, ours = average(name, q, radius, variance), integrate(q, radius, variance, rule=RULES[name], kernel=spheres)
    for a, b in zip(closed, ours, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-8 * np.abs(a).max())


@pytest.mark.parametrize("name", ["lognormal", "schulz"])
@pytest.mark.parametrize(("radius", "sigma"), [(0.5, 0.6), (1.0, 0.8), (20.0, 10.0), (2.0, 3.0)])
def test_broad_distributions_equal_the_integral_too(name, radius, sigma):
    """Up to σ/R of 1.5, and over many oscillations: the lognormal leaves the real radii there."""
    q = np.geomspace(5e-3, 5, 12)
    reached = np.linspace(-25 if name == "schulz" else -12, 14, 200_001)
    r = radius * np.exp(reached)
    with np.errstate(under="ignore"):
        weight = getattr(distributions, f"{name}_density")(r, radius, sigma**2) * r
    wanted = [np.trapezoid(weight * sphere(np.array([x]), r)[:, 0], reached) for x in q]
    np.testing.assert_allclose(one(name, q, radius, sigma**2)[0], wanted, rtol=1e-7)


def test_no_row_of_an_integral_depends_on_the_others():
    q, rng = np.linspace(0.1, 5, 50), np.random.default_rng(1)
    radius, variance = rng.uniform(0.5, 5, 40), rng.uniform(-0.01, 0.7, 40)
    together = average("lognormal", q, radius, variance)
    for k in (0, 7, 39):
        alone = average("lognormal", q, radius[k : k + 1], variance[k : k + 1])
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a[0], b[k])


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_without_a_size_has_no_curve_and_leaves_the_others_alone(name):
    q, radius, variance = np.linspace(0.1, 5, 40), np.array([2.2, np.nan, 1.5]), np.array([0.02, 0.02, np.nan])
    found = hindered(name, q, radius, variance, np.array([0.1, 0.1, 0.1]), 0.5)
    alone = hindered(name, q, radius[:1], variance[:1], np.array([0.1]), 0.5)
    for part, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(part[0], other[0])
        assert np.isnan(part[1:]).all()


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5])
def test_hard_spheres_equal_sasmodels(fraction):
    from sasmodels.core import load_model
    from sasmodels.direct_model import call_kernel

    q = np.geomspace(1e-3, 6, 300)
    kernel = load_model("hardsphere", dtype="double", platform="dll").make_kernel([q / 10])
    theirs = call_kernel(kernel, {"radius_effective": 25.0, "volfraction": fraction})
    np.testing.assert_allclose(hard_spheres(q, 2.5, fraction), theirs, rtol=1e-6)  # theirs, where it joins its series
    u = np.linspace(0, 1, 20_001)
    alpha = (1 + 2 * fraction) ** 2 / (1 - fraction) ** 4
    beta = -6 * fraction * (1 + fraction / 2) ** 2 / (1 - fraction) ** 4
    direct = (alpha + beta * u + fraction * alpha / 2 * u**3) * u**2
    integral = simpson(direct * np.sinc(2 * q[:, None] * 2.5 * u / np.pi), x=u)
    np.testing.assert_allclose(hard_spheres(q, 2.5, fraction), 1 / (1 + 24 * fraction * integral), rtol=1e-9)
    assert hard_spheres(0.0, 2.5, fraction) == pytest.approx((1 - fraction) ** 4 / (1 + 2 * fraction) ** 2, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_local_monodisperse_approximation_is_the_integral_of_p_times_s(name):
    q, radius, variance, shell, eta = np.linspace(0.05, 4, 60), 2.2, 0.3**2, 0.6, 0.15
    r = radius * np.exp(np.linspace(-1.4, 1.6, 8001))
    density = getattr(distributions, f"{name}_density")(r, radius, variance)
    inside = sphere(q, r) * hard_spheres(q, r[:, None] + shell, eta)
    want = np.trapezoid((density * r)[:, None] * inside, np.log(r), axis=0)
    value, *derivatives = hindered(name, q, np.array([radius]), np.array([variance]), np.array([eta]), shell)
    np.testing.assert_allclose(value[0], want, rtol=1e-7)
    for k, got in enumerate(derivatives):
        steps = np.zeros((3, 1))
        steps[k] = 1e-4
        up, down = (hindered(name, q, radius + s[0], variance + s[1], eta + s[2], shell)[0] for s in (steps, -steps))
        np.testing.assert_allclose(got, (up - down) / 2e-4, rtol=0, atol=1e-5 * np.abs(got).max())
