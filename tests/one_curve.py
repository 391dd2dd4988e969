"""One curve with noise of a known σ, for the fits in depth."""

import numpy as np

from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor
from saxs_pipeline.types import Curves

Q = np.linspace(0.15, 5.0, 200)
CONTRAST = 35.2e-6
FACTOR = intensity_factor(CONTRAST)
EVERYWHERE = np.ones(len(Q), dtype=bool)


def one_curve(intensity, sigma, q=Q, **more):
    """A single curve in 1/mm."""
    m = len(q)
    given = {
        "shared": np.zeros(m),
        "counts": np.ones((1, m)),
        "dark_sigma": np.zeros(m),
        "dark_factor": np.zeros(1),
        "taken_off": np.zeros(m),
    }
    return Curves(
        q_nm=q,
        intensity=np.asarray(intensity, dtype=float)[None],
        statistical=np.broadcast_to(sigma, m).astype(float)[None],
        index=np.array([0]),
        start_s=np.array([0.0]),
        exposure_s=np.array([1.0]),
        problems=("",),
        notes=("",),
        **(given | more),
    )


def spheres(c, radius, width, background=0.0, q=Q):
    """I(q) of a Gaussian distribution, 1/mm."""
    return FACTOR * c * gaussian_spheres(q, np.array([radius]), np.array([width**2]))[0][0] + background


def noisy(c, radius=2.22, width=0.13, background=1e-4, sigma=2e-4, seed=0, **more):
    """A measured curve of Gaussian spheres."""
    noise = np.random.default_rng(seed).normal(0, sigma, len(Q))
    return one_curve(spheres(c, radius, width, background) + noise, sigma, **more)
