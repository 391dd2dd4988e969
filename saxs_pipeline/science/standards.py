"""Known absolute scattering of the standards: water at its temperature, and the glassy carbon NIST SRM 3600."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from saxs_pipeline.types import BadInput, Floats, Uncertain

# --- water -----------------------------------------------------------------------------------------------------------

FREEZING_K = 273.15
WATER_RANGE_K = (FREEZING_K, FREEZING_K + 100)
"""Temperatures at which Kell's formulas hold."""
WATER_MODEL_REL = 0.01
"""Relative standard uncertainty of the cross section beside that of the temperature. The formula holds for q → 0, and
water is read at finite q; values in use at 20-25 °C, 1.632e-3 1/mm (Orthaber et al. 2000) and 1.65e-3 1/mm (Dreiss et
al. 2006), lie 0.6 % below and 0.5 % above it. Kell's density and compressibility are good to 0.001 % and 0.1 %."""

_BOLTZMANN_J_K, _AVOGADRO_MOL = 1.380649e-23, 6.02214076e23  # exact SI values
_ELECTRON_RADIUS_M = 2.8179403205e-15  # CODATA 2022
_ELECTRONS, _MOLAR_MASS_KG = 10, 18.01528e-3

# Kell 1975, J. Chem. Eng. Data 20, 97: eq. 16 (density, kg/m³) and eq. 20 (compressibility, 1e-11 1/Pa), t in °C
_DENSITY = (999.83952, 16.945176, -7.9870401e-3, -46.170461e-6, 105.56302e-9, -280.54253e-12), 16.879850e-3
_COMPRESSIBILITY = (50.88496, 0.6163813, 1.459187e-3, 20.08438e-6, -58.47727e-9, 410.4110e-12), 19.67348e-3


def water_density(temperature_K: float) -> float:
    """Density of air-free water at 1 atm, kg/m³ (Kell 1975)."""
    return _kell(temperature_K, *_DENSITY)


def water_compressibility(temperature_K: float) -> float:
    """Isothermal compressibility of water at 1 atm, 1/Pa (Kell 1975)."""
    return 1e-11 * _kell(temperature_K, *_COMPRESSIBILITY)


def _kell(temperature_K: float, numerator: tuple[float, ...], denominator: float) -> float:
    t = temperature_K - FREEZING_K
    return float(np.polynomial.polynomial.polyval(t, numerator)) / (1 + denominator * t)


def water_cross_section(temperature_K: Uncertain) -> Uncertain:
    """dΣ/dΩ = (ρ_e r_e)² k_B T χ_T of water for q → 0, 1/mm: density fluctuations at constant temperature.

    Its uncertainty is that of the temperature and, in quadrature, WATER_MODEL_REL. Raises BadInput outside 0-100 °C.
    """
    t, error = temperature_K
    if not WATER_RANGE_K[0] <= t <= WATER_RANGE_K[1]:
        raise BadInput(f"water at {t - FREEZING_K:g} °C: its cross section is known from 0 to 100 °C; correct it")
    step = 1e-3
    slope = (_cross_section(t + step) - _cross_section(t - step)) / (2 * step)
    value = _cross_section(t)
    return Uncertain(value, math.hypot(slope * error, WATER_MODEL_REL * value))


def _cross_section(temperature_K: float) -> float:
    electrons_m3 = _ELECTRONS * _AVOGADRO_MOL * water_density(temperature_K) / _MOLAR_MASS_KG
    fluctuations_m3 = _BOLTZMANN_J_K * temperature_K * water_compressibility(temperature_K)
    return 1e-3 * (electrons_m3 * _ELECTRON_RADIUS_M) ** 2 * fluctuations_m3


# --- glassy carbon ---------------------------------------------------------------------------------------------------

# Certificate of NIST SRM 3600 (2016); Allen et al. 2017, J. Appl. Cryst. 50, 462: q in 1/Å, dΣ/dΩ in 1/cm per sr, and
# its combined standard uncertainty u
_SRM_3600 = np.array([
    (0.00827568, 34.93338, 0.901092),
    (0.0088845, 34.427156, 0.888034),
    (0.00954735, 34.04217, 0.878103),
    (0.010269, 33.698553, 0.86924),
    (0.0110578, 33.352529, 0.860314),
    (0.0119183, 33.027533, 0.851931),
    (0.0128611, 32.665045, 0.842581),
    (0.0138934, 32.306665, 0.833337),
    (0.0150251, 31.970485, 0.824665),
    (0.0162685, 31.559099, 0.814053),
    (0.0176365, 31.183763, 0.804372),
    (0.0191432, 30.861805, 0.796067),
    (0.0208051, 30.5143, 0.787103),
    (0.0226422, 30.084982, 0.776029),
    (0.024675, 29.690414, 0.765852),
    (0.0269289, 29.249965, 0.75449),
    (0.0294317, 28.88997, 0.745204),
    (0.0322156, 28.449341, 0.733839),
    (0.0353181, 28.06598, 0.72395),
    (0.0387827, 27.704965, 0.714638),
    (0.0426588, 27.331304, 0.704999),
    (0.0470039, 26.974065, 0.695784),
    (0.0518858, 26.676952, 0.688121),
    (0.0573814, 26.401158, 0.681007),
    (0.0635829, 26.177427, 0.675236),
    (0.0705962, 25.904683, 0.6682),
    (0.0785484, 25.528734, 0.658503),
    (0.0875863, 24.917743, 0.642743),
    (0.0978854, 23.946472, 0.617689),
    (0.109655, 22.472101, 0.579658),
    (0.114312, 21.777228, 0.561734),
    (0.118395, 21.112938, 0.544599),
    (0.122624, 20.40111, 0.526238),
    (0.123142, 20.28706, 0.523296),
    (0.127004, 19.685107, 0.507769),
    (0.13154, 18.909809, 0.48777),
    (0.136239, 18.089242, 0.466604),
    (0.138643, 17.679572, 0.456037),
    (0.141105, 17.264117, 0.445321),
    (0.146145, 16.372848, 0.422331),
    (0.151365, 15.45835, 0.398742),
    (0.156513, 14.5877, 0.376284),
    (0.156771, 14.563071, 0.375648),
    (0.162371, 13.616671, 0.351236),
    (0.16817, 12.668549, 0.32678),
    (0.174177, 11.752287, 0.303145),
    (0.177181, 11.31146, 0.291774),
    (0.180398, 10.862157, 0.280185),
    (0.186841, 9.961979, 0.256965),
    (0.193515, 9.116906, 0.235167),
    (0.200427, 8.325578, 0.214755),
    (0.201165, 8.224897, 0.212158),
    (0.207586, 7.541931, 0.194541),
    (0.215, 6.854391, 0.176806),
    (0.222679, 6.21607, 0.160341),
    (0.229095, 5.715911, 0.147439),
    (0.230633, 5.582366, 0.143995),
    (0.238871, 4.999113, 0.12895),
    (0.247402, 4.463604, 0.115137),
])  # fmt: skip

SRM_3600_Q_NM: Floats = 10 * _SRM_3600[:, 0]
SRM_3600_1_MM: Floats = 0.1 * _SRM_3600[:, 1]
SRM_3600_U_1_MM: Floats = 0.1 * _SRM_3600[:, 2]
SRM_3600_REL = float(np.max(SRM_3600_U_1_MM / SRM_3600_1_MM))
"""Relative standard uncertainty of the certificate. It is the same at all q (2.58 %): the values scatter far less about
a smooth curve, so nearly all of it is one common factor. It counts as wholly common here: no fit over q makes it
smaller."""


def glassy_carbon(q_nm: Floats) -> Floats:
    """Certified dΣ/dΩ of SRM 3600 at q (m,), 1/mm; NaN outside the certificate's range of q.

    Monotone cubic (PCHIP) of ln I over ln q: some certified q lie so close together that a spline would swing.
    """
    from scipy.interpolate import PchipInterpolator

    inside = (q_nm >= SRM_3600_Q_NM[0]) & (q_nm <= SRM_3600_Q_NM[-1])
    curve: Any = PchipInterpolator(np.log(SRM_3600_Q_NM), np.log(SRM_3600_1_MM))
    found = np.full(q_nm.shape, np.nan)
    found[inside] = np.exp(curve(np.log(q_nm[inside])))
    return found
