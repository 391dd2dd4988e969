"""Fit table → r, σ_r, c_NC, yield with statistical and systematic uncertainties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from saxs_pipeline.sample_config import Material, Sample
from saxs_pipeline.science import contrast, formfactors, quantities
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.joint import CurveErrors, shared_response
from saxs_pipeline.types import BadInput, Bools, Curves, Estimate, FitTable, Floats, Quantities, Uncertain

UNSIZED = frozenset({"weak", "size_held", "vanished", "negative_amount", "not_converged", "negative_variance"})
"""Flags of frames whose r and σ_r are not reported."""

UNKNOWN = Uncertain(np.nan, np.nan)
"""What a yield needs and the run file does not give: the yield is then NaN."""


class Scatterer(NamedTuple):
    """A material at the sample's temperature: mass density, g/cm³; scattering length density, 1/Å², and its slope, 1/K.

    The uncertainties are those of density, unit cell and expansion; the temperature's goes with the slope.
    """

    density_g_cm3: Uncertain
    length_density_1_A2: Uncertain
    per_K: float


def scatterer(material: Material, temperature_K: Uncertain | None, energy_keV: float) -> Scatterer:
    """A material at this temperature and energy; without an expansion its density holds as it is given.

    Raises BadInput for one that expands to a temperature which is not given.
    """
    density, per_K = _density(material), 0.0
    if material.expansion is not None and material.density_at is not None:
        if temperature_K is None:
            raise BadInput(f"the expansion of {material.formula} needs `sample.temperature`, e.g. 260 °C")
        warming = temperature_K.value - material.density_at
        density, per_K = contrast.expanded_density(density, material.expansion, warming)
    value = contrast.scattering_length_density(material.formula, density.value, energy_keV)
    each = value / density.value
    return Scatterer(density, Uncertain(value, each * density.error), each * per_K)


def _density(material: Material) -> Uncertain:
    """As given or from the unit cell, g/cm³."""
    if material.density is not None:
        return material.density
    cell = material.lattice_parameter
    assert cell is not None and material.formula_units is not None
    value = contrast.crystal_density(material.formula, cell.value, material.formula_units)
    return Uncertain(value, 3 * cell.relative * value)


def contrast_1_A2(sample: Sample, energy_keV: float | None) -> Uncertain:
    """Scattering length density contrast in 1/Å², given or from compositions at this energy (Prins SI, S2.4).

    Its uncertainty is that of the densities, independent of one another, and of the temperature that they share.
    """
    if sample.contrast is not None:
        return sample.contrast
    if sample.particle is None or sample.solvent is None or energy_keV is None:
        raise BadInput("sample.particle: a contrast from compositions needs the X-ray energy; give sample.contrast")
    particle, solvent = (scatterer(m, sample.temperature, energy_keV) for m in (sample.particle, sample.solvent))
    of_particle, of_solvent = particle.length_density_1_A2, solvent.length_density_1_A2
    if np.isclose(of_particle.value, of_solvent.value, rtol=1e-6):
        raise BadInput("particle and solvent have the same scattering length density; there is no contrast")
    by_temperature = 0.0
    if sample.temperature is not None:
        by_temperature = (particle.per_K - solvent.per_K) * sample.temperature.error
    error = math.hypot(of_particle.error, of_solvent.error, by_temperature)
    return Uncertain(of_particle.value - of_solvent.value, error)


Samples = Sequence[Sample | None]
"""The sample as each population sees it."""


def amplitude_factors(samples: Samples, energy_keV: float | None) -> tuple[float, ...]:
    """I(q) in 1/mm per µmol/L and nm⁶ of each population; 1 without a sample, when c means nothing."""
    return tuple(
        1.0 if sample is None else formfactors.intensity_factor(contrast_1_A2(sample, energy_keV).value)
        for sample in samples
    )


def quantify(
    fits: FitTable, curves: Curves, samples: Samples, energy_keV: float | None, inside: Bools | None = None
) -> tuple[Quantities, ...]:
    """Quantities of every frame, of each population; c needs absolute curves and a contrast, the yield a unit cell.

    inside (m,): bins that were fitted; without them the shared part of the errors is not said.
    """
    flags = (fits.flags, *fits.others)
    found = (_of_population(fits, curves, k, flags[k], sample, energy_keV) for k, sample in enumerate(samples))
    if inside is None:
        return tuple(found)
    return tuple(replace(one, shared=_shared(fits, curves, inside, k, one)) for k, one in enumerate(found))


def _shared(fits: FitTable, curves: Curves, inside: Bools, population: int, quantities: Quantities) -> Floats:
    """Standard errors (n, 3) of r, σ_r, c by what all frames share; NaN where these are not reported."""
    model, part = CurveModel.of(fits.model), np.full((len(fits.index), 3), np.nan)
    rows = curves.usable & fits.free.any(axis=1) & (np.isfinite(fits.values) | ~fits.free).all(axis=1)
    errors = CurveErrors.of(curves, rows, inside)
    response = shared_response(errors, fits.values[rows], model, fits.free[rows], population)
    c, r, s = np.sqrt(np.einsum("nim,nim->in", response, response))
    with np.errstate(divide="ignore", invalid="ignore"):
        part[rows] = np.stack([r, s / (2 * quantities.sigma_nm.value[rows]), c], axis=-1)
    reported = (quantities.radius_nm, quantities.sigma_nm, quantities.c_nc_umol_L)
    known = np.stack([np.isfinite(one.statistical) for one in reported], axis=-1)
    return np.where(known, part, np.nan)


def _of_population(  # noqa: PLR0917
    fits: FitTable, curves: Curves, number: int, flags: tuple[str, ...], sample: Sample | None, energy_keV: float | None
) -> Quantities:
    strong = np.array([UNSIZED.isdisjoint(flag.split("|")) for flag in flags]) & curves.usable
    absolute = sample is not None and curves.unit == "1/mm"
    scale_rel = curves.scale_rel
    if sample is not None and absolute:
        scale_rel = float(np.hypot(scale_rel, 2 * contrast_1_A2(sample, energy_keV).relative))
    columns = [*fits.model.places(number), 3]
    derived = quantities.derive(
        fits.values[:, columns],
        fits.covariance[:, columns][:, :, columns],
        lattice_nm=(sample and sample.lattice_parameter) or UNKNOWN,
        cations_per_cell=(sample and sample.cations_per_cell) or np.nan,
        cation_mmol_L=(sample and sample.cation_concentration) or UNKNOWN,
        scale_rel=scale_rel,
        distribution=fits.model.distribution,
    )
    upper = derived.sigma_is_limit & strong
    return Quantities(
        index=fits.index,
        time_s=curves.time_s,
        exposure_s=curves.exposure_s,
        radius_nm=_only(derived.radius_nm, strong),
        sigma_nm=_only(derived.sigma_nm, strong),
        c_nc_umol_L=derived.c_nc_umol_L if absolute else _only(derived.c_nc_umol_L, np.zeros_like(strong)),
        yield_=derived.yield_ if absolute else _only(derived.yield_, np.zeros_like(strong)),
        background_1_mm=_only(derived.background_1_mm, np.full(len(strong), curves.unit == "1/mm")),
        chi2_red=fits.chi2_red,
        covariance=_sized_covariance(derived.covariance, strong),
        flags=tuple(_with_word(flag, "sigma_upper_limit") if u else flag for flag, u in zip(flags, upper, strict=True)),
    )


def _only(estimate: Estimate, where: Bools) -> Estimate:
    return Estimate(*(np.where(where, part, np.nan) for part in estimate))


def _sized_covariance(covariance: Floats, strong: Bools) -> Floats:
    """Covariance of (r, σ_r, c) without the rows of sizes that are not reported."""
    masked = covariance.copy()
    weak = np.flatnonzero(~strong)[:, None]
    masked[weak, [0, 1], :] = masked[weak, :, [0, 1]] = np.nan
    return masked


def _with_word(flag: str, word: str) -> str:
    return word if flag == "ok" else f"{flag}|{word}"
