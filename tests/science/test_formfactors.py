"""Form factors against closed-form values, quadrature, sasmodels and published curves of another code."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.special import spherical_jn

from saxs_pipeline.science.distributions import gaussian_density, gaussian_moments
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor, sphere

CONTRAST = 35.2e-6
REAL_DATA = Path(os.environ.get("SAXS_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def one(q, radius, variance):
    """(P, ∂P/∂R₀, ∂P/∂s) of a single frame, each (m,)."""
    return [a[0] for a in gaussian_spheres(np.atleast_1d(q), np.array([radius]), np.array([variance]))]


def quadrature(q, radius, variance, points=6001):
    """The same by the trapezoid rule over ±14σ, with the sphere's amplitude from Bessel functions: no cancellation."""
    r = np.linspace(radius - 14 * math.sqrt(variance), radius + 14 * math.sqrt(variance), points)
    weight = gaussian_density(r, radius, variance) * (r[1] - r[0])
    x = np.abs(np.outer(r, q))
    amplitude = 4 * math.pi * r[:, None] ** 2 * spherical_jn(1, x) / q
    slope = 4 * math.pi * r[:, None] ** 2 * spherical_jn(0, x)  # ∂/∂r of (4π/q³)(sin x − x cos x)
    by_radius = 2 * amplitude * np.sign(r)[:, None] * slope
    by_variance = weight * ((r - radius) ** 2 - variance) / (2 * variance**2)  # ∂g/∂s
    return weight @ amplitude**2, weight @ by_radius, by_variance @ amplitude**2


def test_reference_case_of_the_paper():
    factor = intensity_factor(CONTRAST)
    assert factor == pytest.approx(7.4617e-6, rel=1e-5)
    zero_angle = factor * 25 * one(0.0, 2.22, 0.13**2)[0]
    assert zero_angle == pytest.approx(0.412, abs=5e-4)


def test_intensity_factor_by_dimensional_analysis():
    # 1 µmol/L of spheres in 1/m³, contrast in 1/m², volume² in m⁶ give 1/m
    expected_1_m = (1e-6 * 1e3 * 6.02214076e23) * (CONTRAST * 1e20) ** 2 * 1e-54
    assert intensity_factor(CONTRAST) == pytest.approx(expected_1_m * 1e-3, rel=1e-14)


def test_forward_scattering_is_the_mean_squared_volume():
    moment = gaussian_moments(2.22, 0.13**2)[6]
    assert one(0.0, 2.22, 0.13**2)[0] == pytest.approx((4 * math.pi / 3) ** 2 * moment, rel=1e-14)
    assert sphere(np.array([0.0]), 2.0) == pytest.approx((4 * math.pi / 3 * 8) ** 2, rel=1e-15)


def test_porod_invariant_has_the_volume():
    """∫ P q² dq = 2π² V: with the misprinted 36π it would be 4π times that."""
    q = np.linspace(1e-4, 400, 400_001)
    invariant = np.trapezoid(sphere(q, 2.0) * q**2, q)
    tail = 2 * math.pi * 4 * math.pi * 4.0 / q[-1]  # Porod: P → 2πS/q⁴
    assert invariant + tail == pytest.approx(2 * math.pi**2 * 4 * math.pi / 3 * 8, rel=1e-5)


@pytest.mark.parametrize("relative_width", [0.01, 0.05, 0.1, 0.2])
def test_closed_form_and_derivatives_equal_quadrature(relative_width):
    radius = 2.22
    variance = (relative_width * radius) ** 2
    q = np.geomspace(1e-4, 100, 160) / radius
    for got, want in zip(one(q, radius, variance), quadrature(q, radius, variance), strict=True):
        envelope = np.maximum.accumulate(np.abs(want)[::-1])[::-1]  # derivatives pass through 0
        np.testing.assert_allclose(got / envelope, want / envelope, rtol=0, atol=1e-11)


def test_relative_accuracy_where_closed_form_meets_series():
    radius, variance = 1.7, 0.2**2
    q = np.linspace(0.05, 0.6, 400) / radius
    for got, want in zip(one(q, radius, variance), quadrature(q, radius, variance), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11)


@pytest.mark.parametrize("variance", [0.03, 0.0, -0.004])
def test_derivatives_equal_finite_differences(variance):
    """Richardson-extrapolated central differences, also where s ≤ 0 leaves no distribution to integrate."""
    q, radius, h = np.linspace(0.02, 6, 80), 1.9, 2e-3

    def richardson(f):
        coarse, fine = ((f(k) - f(-k)) / (2 * k) for k in (h, h / 2))
        return (4 * fine - coarse) / 3

    value, by_radius, by_variance = one(q, radius, variance)
    numeric_r = richardson(lambda k: one(q, radius + k, variance)[0])
    numeric_s = richardson(lambda k: one(q, radius, variance + 0.1 * k)[0]) / 0.1
    np.testing.assert_allclose(by_radius, numeric_r, rtol=0, atol=1e-7 * np.abs(by_radius).max())
    np.testing.assert_allclose(by_variance, numeric_s, rtol=0, atol=1e-7 * np.abs(by_variance).max())
    assert np.isfinite(value).all()


def test_zero_width_is_the_single_sphere():
    q = np.linspace(0, 8, 300)
    np.testing.assert_allclose(one(q, 2.0, 0.0)[0], sphere(q, 2.0), rtol=0, atol=1e-11 * sphere(q, 2.0)[0])


def test_sphere_against_bessel_functions():
    q = np.geomspace(1e-5, 40, 500)
    radii = np.array([0.5, 2.0, 30.0])
    want = (4 * math.pi * radii[:, None] ** 2 * spherical_jn(1, radii[:, None] * q) / q) ** 2
    envelope = np.maximum.accumulate(want[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(sphere(q, radii) / envelope, want / envelope, rtol=0, atol=2e-12)


def test_sasmodels_agrees():
    from sasmodels.core import load_model
    from sasmodels.direct_model import call_kernel

    q, radius, sigma, c = np.linspace(0.05, 5.0, 200), 2.22, 0.13, 25.0
    fraction = c * 6.02214076e-7 * 4 * math.pi / 3 * gaussian_moments(radius, sigma**2)[3]
    assert fraction == pytest.approx(6.97e-4, rel=1e-3)
    kernel = load_model("sphere", dtype="double", platform="dll").make_kernel([q / 10])
    per_cm = call_kernel(
        kernel,
        {
            "scale": fraction,
            "background": 0.0,
            "sld": CONTRAST * 1e6,
            "sld_solvent": 0.0,
            "radius": 10 * radius,
            "radius_pd": sigma / radius,
            "radius_pd_n": 80,
            "radius_pd_nsigma": 8,
        },
    )
    ours = intensity_factor(CONTRAST) * c * one(q, radius, sigma**2)[0]
    np.testing.assert_allclose(ours, 0.1 * per_cm, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "relative_width"),
    [("testPolydisperseGaussianSphere.dat", 0.1), ("testPolydisperseGaussianSphere2.dat", 0.15)],
)
def test_published_curves_of_another_code(name, relative_width):
    """R₀ = 20 Å, contrast 6e-6 1/Å²; ⟨F²⟩ in the files is contrast²⟨P⟩ in Å⁶ with the integral cut at ±5σ."""
    path = REAL_DATA / "gaussian_spheres" / name
    if not path.is_file():
        pytest.skip(f"no {path}: set SAXS_REAL_DATA to the folder of real data")
    q_A, _, squared = np.loadtxt(path, skiprows=2, usecols=(0, 1, 2)).T
    to_A6 = (6e-6) ** 2 * 1e6
    np.testing.assert_allclose(to_A6 * one(10 * q_A, 2.0, (2 * relative_width) ** 2)[0], squared, rtol=1e-5)

    z = np.linspace(-5, 5, 2001)
    weight = np.exp(-0.5 * z**2)
    weight[[0, -1]] *= 0.5
    cut = weight @ sphere(10 * q_A, 2.0 + 2 * relative_width * z) / weight.sum()
    np.testing.assert_allclose(to_A6 * cut, squared, rtol=2e-6)
