"""A known run: curves of Gaussian spheres by direct quadrature, with noise, bad frames, all that a run can hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from saxs_pipeline.quality import Quality
from saxs_pipeline.reaction import (
    Aliquots,
    BuildUp,
    Comparison,
    KineticParameter,
    Phase,
    ScaledAliquots,
    SeriesAnalysis,
)
from saxs_pipeline.science.buildup import EXPONENTIAL, SECOND_ORDER, WITH_DELAY
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
from tests.spheres import gaussian_model

AMPLITUDE = 7.4617e-6  # mm⁻¹ per µmol/L and nm⁶ at Δρ = 35.2e-6 Å⁻²
HOSTILE_TITLE = 'CdSe <script>alert(1)</script> & "run" 7'
CONFIG_TEXT = "title: CdSe  # </pre><script>alert(2)</script>\ndata: {frames: 'raw/*.h5'}\n"
DELAY, RATE, EXCESS = 1.1, 0.01417, 2.5  # of the second-order law of the yield: s, 1/s, beta
T98_YIELD = DELAY + math.log(1 + 49 * (1 - 1 / EXCESS)) / (1 - 1 / EXCESS) / RATE
CONTRIBUTIONS = (("counting", 0.0005), ("cross section", 0.0106), ("thickness", 0.0055))
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


def development(t):
    """r, σ_r (nm), c_NC (µmol/L) and yield at the times t ≥ 0 (s)."""
    radius = 1.5 + 0.72 * (1 - np.exp(-t / 90)) + 1.5e-5 * np.maximum(t - 600, 0)
    sigma = 0.13 + 0.05 * np.exp(-t / 120) + 6e-6 * np.maximum(t - 600, 0)
    c = 25 * (1 - np.exp(-t / 15)) * np.exp(-np.maximum(t - 600, 0) / 60000)
    volume = 4 * np.pi / 3 * (radius**3 + 3 * radius * sigma**2)
    return radius, sigma, c, c * 1e-6 * volume * 4 / 0.608**3 / 25.5e-3


def truth(n):
    """Start and exposure times, r, σ_r, c_NC and yield of n frames; the first ten precede the injection."""
    exposure = np.full(n, 0.075)
    steps = np.full(n, 0.1)
    steps[10:] = np.geomspace(0.15, 33.0 * 575 / n, n - 10)
    start = np.concatenate([[0.0], np.cumsum(steps)[:-1]]) - 0.96
    return start, exposure, *development(np.maximum(start + 0.5 * exposure, 0.0))


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
        dark_sigma=0.1 * shared,
        dark_factor=np.linspace(-1, 1, n),
        taken_off=0.5 * shared,
        factor_rel=0.002,
        taken_off_rel=0.003,
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
        np.ones((n, 4), dtype=bool),
        quantities.chi2_red,
        np.full(n, m - 1),
        np.isfinite(quantities.chi2_red),
        tuple("" if f == "ok" else f for f in quantities.flags),
        gaussian_model(1.0).spec,
    )
    background = Background(0.004 / (1 + curves.q_nm), curves.shared, "frames 0-9, mean of 10")
    scale = ScaleFactor(Uncertain(3.217e-7, 3.9e-9), "water", (1.0, 3.5), 0.4, 1.05, 0.0031, CONTRIBUTIONS)
    standing_out = Quality(*rng.random((5, n)))
    pixel_mask = np.zeros((30, 40), np.uint16)
    pixel_mask[:, 7], pixel_mask[3:9, 5:9] = 1, pixel_mask[3:9, 5:9] | 256
    return RunResult(
        HOSTILE_TITLE, curves, background, scale, fits, model, quantities, provenance(), ("times from the scalers",),
        quality=standing_out, pixel_mask=pixel_mask,
    )  # fmt: skip


def known_analysis():
    """What the closed forms of `development` say: t98 = 15 s · ln 50 of c_NC, dσ_r/dt = −(0.05/120) e^(−t/120) nm/s."""
    c_law = BuildUp(
        EXPONENTIAL, ("c_inf_umol_L", "k_1_s"), np.array([25.0, 1 / 15]), np.diag([0.01, 1e-8]),
        Uncertain(15 * math.log(50), 0.9), 1.02,
    )  # fmt: skip
    yield_law = BuildUp(
        SECOND_ORDER + WITH_DELAY, ("yield_inf", "initial_rate_1_s", "inverse_excess"),
        np.array([0.81, RATE, 1 / EXCESS]), np.diag([1e-6, 1e-8, 1e-2]), Uncertain(T98_YIELD, 12.3), 3.4,
    )  # fmt: skip
    t = np.geomspace(2, 3000, 24)
    rate = -0.05 / 120 * np.exp(-t / 120) + np.where(t > 600, 6e-6, 0)
    error = 0.004 / t
    rate[3] = np.nan
    phases = (
        Phase("induction", 0.0, 1.1), Phase("nucleation", 1.1, 58.7),
        Phase("growth", 58.7, 402.4), Phase("ripening", 402.4, 7900.0),
    )  # fmt: skip
    return SeriesAnalysis(
        c_law, yield_law, Uncertain(0.1458, 0.005), phases, t, Estimate(rate, error, np.zeros(24)),
        Uncertain(2.1, 0.4), ("the growth phase <has> few frames",),
    )  # fmt: skip


def known_comparison(quantities):
    """The truth as the model: residuals are the noise of `make_quantities`; weak and early frames were not used."""
    model = [np.where(quantities.time_s < 0, np.nan, x) for x in development(np.maximum(quantities.time_s, 0))]
    t = np.geomspace(0.05, 8000, 300)
    used = np.isfinite(quantities.radius_nm.value) & (quantities.time_s > 3)
    parameters = (
        KineticParameter("A", "m/s", 0.0455, 0.0012, 0.0004, True),
        KineticParameter("gamma", "J/m^2", 0.181, 0.0021, 0.0009, True),
        KineticParameter("n", "", 3.92, 0.11, 0.0, True),
        KineticParameter("k1", "1/s", 4.88e-3, 3.1e-5, 0.0, True),
        KineticParameter("T", "K", 533.15, 0.0, 0.0, False),
        KineticParameter("v0", "m^3", 5.59e-29, 0.0, 0.0, False),
    )
    correlation = np.array([[1, 0.97, 0.5, 0.1], [0.97, 1, 0.4, 0.2], [0.5, 0.4, 1, -0.3], [0.1, 0.2, -0.3, 1]])
    return Comparison(
        "calibrated <model>", parameters, correlation, 1.0123, 103, True, 41, *model, used, t, *development(t),
        ("the induction was not fitted",),
    )  # fmt: skip


def known_aliquots(scale=0.8):
    """Aliquots that lie on the truth once c_NC and yield are divided by `scale`; one is later than all frames."""
    t = np.array([5.0, 30.0, 120.0, 400.0, 2000.0, 1e6])
    r, _, c, y = development(t)
    r[1] = np.nan
    aliquots = Aliquots(
        t, r, np.full(6, 0.03), c * scale, np.full(6, 0.9), y * scale, 0.04 * y * scale, "aliquots.csv", np.full(6, 0.3)
    )
    return ScaledAliquots(aliquots, Uncertain(scale, 0.02), fitted=True)


def with_reaction(result):
    """The result with all that is said about the reaction."""
    comparison = known_comparison(result.quantities)
    return replace(result, analysis=known_analysis(), comparison=comparison, aliquots=known_aliquots())


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
        dark_factor=c.dark_factor[keep],
        problems=tuple(c.problems[i] for i in keep),
        notes=tuple(c.notes[i] for i in keep),
    )
    fits = FitTable(
        t.index[keep], t.values[keep], t.covariance[keep], t.free[keep],
        t.chi2_red[keep], t.n_points[keep], t.converged[keep],
        tuple(t.flags[i] for i in keep), t.model,
    )  # fmt: skip
    estimates = [
        Estimate(*(a[keep] for a in getattr(q, name)))
        for name in ("radius_nm", "sigma_nm", "c_nc_umol_L", "yield_", "background_1_mm")
    ]  # fmt: skip
    quantities = Quantities(
        q.index[keep], q.time_s[keep], q.exposure_s[keep], *estimates, q.chi2_red[keep], q.covariance[keep],
        tuple(q.flags[i] for i in keep),
    )  # fmt: skip
    quality = Quality(*(values[keep] for values in vars(result.quality).values()))
    return replace(result, curves=curves, fits=fits, quantities=quantities, model=result.model[keep], quality=quality)
