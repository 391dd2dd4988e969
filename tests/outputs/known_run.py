"""A known run: curves of Gaussian spheres by direct quadrature, with noise, bad frames, all that a run can hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from saxs_pipeline.types import (
    Background,
    Curves,
    Estimate,
    FitTable,
    InputFile,
    Provenance,
    Quantities,
    RunResult,
    ScaleFactor,
    Uncertain,
)

AMPLITUDE = 7.4617e-6  # mm⁻¹ per µmol/L and nm⁶ at Δρ = 35.2e-6 Å⁻²
HOSTILE_TITLE = 'CdSe <script>alert(1)</script> & "run" 7'
CONFIG_TEXT = "title: CdSe  # </pre><script>alert(2)</script>\ndata: {frames: 'raw/*.h5'}\n"
BAD_FRAMES = {13: "all_zero", 16: "unreadable", 19: "nan", 22: "monitor_zero"}


def sphere_intensity(q, radius, sigma, concentration):
    """I(q) in 1/mm of Gaussian spheres, trapezoid over 241 radii; one row per frame."""
    z = np.linspace(-6, 6, 241)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    total = np.zeros((len(radius), q.size))
    for z_i, w_i in zip(z, weight, strict=True):
        r = (radius + z_i * sigma)[:, None]
        x = q * r
        total += w_i * (4 * np.pi / 3 * r**3 * 3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2
    return AMPLITUDE * concentration[:, None] * total


def truth(n):
    """Start and exposure times, r, σ_r, c_NC and yield of n frames; the first ten precede the injection."""
    exposure = np.full(n, 0.075)
    steps = np.full(n, 0.1)
    steps[10:] = np.geomspace(0.15, 33.0 * 575 / n, n - 10)
    start = np.concatenate([[0.0], np.cumsum(steps)[:-1]]) - 0.96
    t = np.maximum(start + 0.5 * exposure, 0.0)
    radius = 1.5 + 0.72 * (1 - np.exp(-t / 90)) + 1.5e-5 * np.maximum(t - 600, 0)
    sigma = 0.13 + 0.05 * np.exp(-t / 120) + 6e-6 * np.maximum(t - 600, 0)
    c = 25 * (1 - np.exp(-t / 15)) * np.exp(-np.maximum(t - 600, 0) / 60000)
    volume = 4 * np.pi / 3 * (radius**3 + 3 * radius * sigma**2)
    return start, exposure, radius, sigma, c, c * 1e-6 * volume * 4 / 0.608**3 / 25.5e-3


def flag_words(n, snr):
    """Flags of the frames as a run makes them."""
    words = np.where(snr < 5, "weak", "ok").astype(object)
    words[:10] = "background"
    for frame, word in BAD_FRAMES.items():
        words[frame] = word
    words[25], words[30] = "not_converged", "saturated"
    words[[11, 28]] = ["weak|sigma_upper_limit", "sigma_upper_limit"]
    return tuple(words[:n])


def make_quantities(n, rng):
    """Truth plus Gaussian scatter of a plausible size; NaN where the flag says so."""
    start, exposure, r, s, c, y = truth(n)
    c_err = np.full(n, 0.12)
    snr = c / c_err
    errors = [0.6 / np.maximum(snr, 1) + 0.001, 0.5 / np.maximum(snr, 1) + 0.001, c_err, 0.03 * y + 0.002]
    flags = flag_words(n, snr)
    lost = np.array([f in {*BAD_FRAMES.values(), "not_converged", "background"} for f in flags])
    weak = np.array(["weak" in f for f in flags])
    drop = [lost | weak, lost | weak, lost, lost | weak]
    estimates = []
    for value, error, gone, relative in zip([r, s, c, y], errors, drop, [0, 0, 0.012, 0.014], strict=True):
        noisy = np.where(gone, np.nan, value + error * rng.standard_normal(n))
        estimates.append(Estimate(noisy, np.where(gone, np.nan, error), np.abs(noisy) * relative))
    b_err = np.where(lost, np.nan, 2e-5)
    estimates.append(Estimate(b_err * rng.standard_normal(n), b_err, np.zeros(n)))
    chi2 = np.where(lost, np.nan, 1 + 0.1 * rng.standard_normal(n))
    covariance = np.zeros((n, 3, 3))
    for i in range(3):
        covariance[:, i, i] = estimates[i].statistical ** 2
    time = start + 0.5 * exposure
    return Quantities(np.arange(n), time, exposure, *estimates, chi2, covariance, flags)


def make_curves(n, m, rng):
    """Background-subtracted curves with noise; the first bin is masked, bad frames are NaN. Also the exact model."""
    start, exposure, r, s, c, _ = truth(n)
    q = np.linspace(0.12, 5.0, m)
    model = sphere_intensity(q, r, s, c) + 1e-4
    sigma = np.sqrt(4e-6 * (model + 0.004) / (1 + q))
    shared = np.sqrt(4e-7 * 0.004 / (1 + q))
    intensity = model - 1e-4 + sigma * rng.standard_normal((n, m)) + shared * rng.standard_normal(m)
    counts = np.round(np.tile(200 * q, (n, 1)))
    problems, notes = [""] * n, [""] * n
    notes[30] = "saturated"
    for frame, word in BAD_FRAMES.items():
        problems[frame] = f"{word}: every pixel is 0"
        intensity[frame] = sigma[frame] = model[frame] = np.nan
        counts[frame] = 0
    intensity[:, 0] = sigma[:, 0] = shared[0] = np.nan
    counts[:, 0] = 0
    model[:, q > 4.5] = np.nan
    curves = Curves(
        q,
        intensity,
        sigma,
        shared,
        counts,
        np.arange(n),
        start,
        exposure,
        tuple(problems),
        tuple(notes),
        scale_rel=0.012,
    )
    return curves, model - 1e-4


def make_result(n, m=200, seed=3):
    """A whole RunResult of n frames."""
    rng = np.random.default_rng(seed)
    curves, model = make_curves(n, m, rng)
    quantities = make_quantities(n, rng)
    values = np.column_stack(
        [
            quantities.c_nc_umol_L.value,
            quantities.radius_nm.value,
            quantities.sigma_nm.value**2,
            quantities.background_1_mm.value,
        ]
    )
    fits = FitTable(
        curves.index,
        values,
        np.full((n, 4, 4), 1e-4) * np.eye(4),
        quantities.chi2_red,
        np.full(n, m - 1),
        np.isfinite(quantities.chi2_red),
        tuple("" if f == "ok" else f for f in quantities.flags),
    )
    background = Background(0.004 / (1 + curves.q_nm), curves.shared, "frames 0-9, mean of 10")
    scale = ScaleFactor(Uncertain(3.217e-7, 3.9e-9), "water", (1.0, 3.5), 0.4, 1.05)
    return RunResult(
        HOSTILE_TITLE, curves, background, scale, fits, model, quantities, provenance(), ("times from the scalers",),
    )  # fmt: skip


def provenance():
    """Provenance with nested geometry, text that must be escaped, and non-ASCII."""
    return Provenance(
        CONFIG_TEXT,
        "9f3c" * 16,
        {"saxs_pipeline": "0.1.0", "numpy": "2.4.6"},
        (InputFile("raw/µ_00.h5", 123456789012, 1_760_000_000_123_456_789), InputFile("raw/<b>.h5", 1, 2)),
        ("I(q) = c N_A ⟨P⟩ + b (S2.1)", "⟨V⟩ = 4π/3 (R³ + 3Rσ²)"),
        {"dist": 1.2, "wavelength": 6.888e-11, "detector": "RayonixMx170", "detector_config": {"orientation": 3}},
        ("gain 1 assumed",),
    )


def only(result, keep):
    """The frames `keep` of a result."""
    keep = np.asarray(keep, dtype=int)
    c, t, q = result.curves, result.fits, result.quantities
    curves = replace(
        c,
        intensity=c.intensity[keep],
        statistical=c.statistical[keep],
        counts=c.counts[keep],
        index=c.index[keep],
        start_s=c.start_s[keep],
        exposure_s=c.exposure_s[keep],
        problems=tuple(c.problems[i] for i in keep),
        notes=tuple(c.notes[i] for i in keep),
    )
    fits = FitTable(
        t.index[keep], t.values[keep], t.covariance[keep],
        t.chi2_red[keep], t.n_points[keep], t.converged[keep],
        tuple(t.flags[i] for i in keep),
    )  # fmt: skip
    estimates = [
        Estimate(*(a[keep] for a in getattr(q, name)))
        for name in ("radius_nm", "sigma_nm", "c_nc_umol_L", "yield_", "background_1_mm")
    ]  # fmt: skip
    quantities = Quantities(
        q.index[keep], q.time_s[keep], q.exposure_s[keep], *estimates, q.chi2_red[keep], q.covariance[keep],
        tuple(q.flags[i] for i in keep),
    )  # fmt: skip
    return replace(result, curves=curves, fits=fits, quantities=quantities, model=result.model[keep])
