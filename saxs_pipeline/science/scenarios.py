"""What there is to find in a simulated beamtime: the particles at any time, and the beamline in numbers.

Two syntheses are there in closed form: CdSe crystals of one population (Prins et al.), and CsPbBr3 crystals beside the
agglomerates that they form from (Montanarella et al.). A kinetic model gives crystals of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from saxs_pipeline.science import population
from saxs_pipeline.science.contrast import crystal_density, scattering_length_density
from saxs_pipeline.science.distributions import mean_volume
from saxs_pipeline.science.population import Development
from saxs_pipeline.science.quantities import cations_per_crystal
from saxs_pipeline.types import Floats, Uncertain


@dataclass(frozen=True)
class Truth:
    """What a perfect measurement would find of a population, each (n,).

    r and σ_r are NaN, c and yield 0 before the injection.
    """

    time_s: Floats
    radius_nm: Floats
    sigma_nm: Floats
    c_umol_L: Floats
    yield_: Floats


# --- CdSe ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    """Growth and ripening of CdSe crystals after the injection, with the numbers of Prins et al., Fig. 1b-c.

    Radius and width relax exponentially; the concentration builds up exponentially (S3.3). Later the volume grown so
    far is shared by fewer crystals: Ostwald ripening, from `ripening_start_s` on, c ∝ 1/(1 + t/ripening_time_s).
    """

    radius_start_nm: float = 1.5
    radius_end_nm: float = 2.22
    radius_time_s: float = 103.54  # the yield is at 98 % of its final value after 400 s
    sigma_end_nm: float = 0.12897  # 0.18 nm at 10 s, 0.13 nm at 400 s
    sigma_excess_nm: float = 0.05640
    sigma_time_s: float = 100.0
    c_end_umol_L: float = 25.0
    c_98_percent_s: float = 60.0
    ripening_start_s: float = 400.0
    ripening_time_s: float = 83_900.0  # c at 92 % after 7700 s
    lattice_parameter_nm: float = 0.608
    cations_per_cell: int = 4
    cation_concentration_mmol_L: float = 26.0


def growth_truth(time_s: Floats, growth: Growth) -> Truth:
    """r, σ_r, c and yield (n,) at times (n,) in s after the injection.

    Yield = c · n_Cd / c_Cd,0 (S2.6) with n_Cd = cations_per_cell · ⟨V⟩/a³ (S2.5).
    """
    before = time_s < 0
    t = np.where(before, 0.0, time_s)
    grown = growth.radius_end_nm - (growth.radius_end_nm - growth.radius_start_nm) * np.exp(-t / growth.radius_time_s)
    sigma = growth.sigma_end_nm + growth.sigma_excess_nm * np.exp(-t / growth.sigma_time_s)
    ripening = 1 + np.maximum(t - growth.ripening_start_s, 0.0) / growth.ripening_time_s
    cubes = (grown**3 + 3 * grown * sigma**2) * ripening
    sigma = sigma * ripening
    c = np.where(before, 0.0, growth.c_end_umol_L * -np.expm1(-math.log(50) * t / growth.c_98_percent_s) / ripening)
    cations = growth.cations_per_cell * (4 * math.pi / 3) * cubes / growth.lattice_parameter_nm**3
    return Truth(
        time_s=time_s,
        radius_nm=np.where(before, np.nan, _radius(cubes, sigma)),
        sigma_nm=np.where(before, np.nan, sigma),
        c_umol_L=c,
        yield_=c * 1e-3 * cations / growth.cation_concentration_mmol_L,
    )


def _radius(cubes_nm3: Floats, sigma_nm: Floats) -> Floats:
    """R₀ of ⟨R³⟩ = R₀³ + 3R₀σ² = m, the one real root of that cubic: 2σ sinh(⅓ arsinh(m/2σ³)).

    Ripening conserves c⟨R³⟩: this is the radius that it leads to.
    """
    radius: Floats = 2 * sigma_nm * np.sinh(np.arcsinh(cubes_nm3 / (2 * sigma_nm**3)) / 3)
    return radius


def development_truth(time_s: Floats, development: Development) -> Truth:
    """Moments of the crystals of a simulated synthesis at times (n,) in s after the injection."""
    there = population.at(development, np.maximum(time_s, 0.0))
    before = time_s <= 0
    return Truth(
        time_s=time_s,
        radius_nm=np.where(before, np.nan, there.all.radius_nm),
        sigma_nm=np.where(before, np.nan, there.all.sigma_nm),
        c_umol_L=np.where(before, 0.0, there.all.c_umol_L),
        yield_=np.where(before, 0.0, there.yield_),
    )


# --- CsPbBr3 ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coexistence:
    """CsPbBr3 crystals that form from agglomerates of Cs[PbBr3], after Montanarella et al., Fig. 1c-d.

    From the paper: agglomerates of 3.0 nm, there at once; crystals of 4.4 nm, most of them, 4.2 µmol/L, after 3 s, of
    7.4 ± 0.7 nm and fewer after 30 s, when the agglomerates are used up; about 8.1 nm after 300 s; 61 % of the Cs in
    the end; 4 to 7 mmol/L of it. Chosen here: the widths that it does not state, 5 mmol/L, and agglomerates less dense
    than the crystals. What one population loses the other gains: their yields add up to `yield_end`.
    """

    agglomerate_radius_nm: float = 1.5
    agglomerate_sigma_nm: float = 0.2
    radius_start_nm: float = 2.2
    radius_end_nm: float = 3.7
    radius_time_s: float = 6.2
    sigma_start_nm: float = 0.4
    sigma_end_nm: float = 0.35
    nucleation_s: float = 3.0
    c_highest_umol_L: float = 4.2
    yield_end: float = 0.61
    ripening_start_s: float = 30.0
    ripening_time_s: float = 870.0
    formula: str = "CsPbBr3"
    lattice_parameter_nm: float = 0.584  # a third root of the orthorhombic cell of 4 (ICSD 97851): 4.83 g/cm³
    agglomerate_lattice_nm: float = 0.622  # of what holds one Cs in the agglomerates: 4.0 g/cm³
    cations_per_cell: int = 1
    cation_concentration_mmol_L: float = 5.0
    solvent: str = "C6H14"
    solvent_g_cm3: float = 0.655

    @property
    def conversion_time_s(self) -> float:
        """τ of the crystals' yield, yield_end·(1 − exp(−t/τ)): with it c_highest is reached after nucleation_s."""
        cations = cations_per_crystal(
            mean_volume(self.radius_start_nm, self.sigma_start_nm**2), self.lattice_parameter_nm, self.cations_per_cell
        )
        share = 1e-3 * self.c_highest_umol_L * float(cations) / self.cation_concentration_mmol_L / self.yield_end
        return -self.nucleation_s / math.log1p(-share)


def coexistence_truth(time_s: Floats, growth: Coexistence) -> tuple[Truth, Truth]:
    """Crystals and agglomerates at times (n,) in s after the injection.

    Until nucleation_s the crystals keep their size and become more; then size and width relax exponentially, and later
    the volume is shared by fewer crystals, as in `growth_truth`. c follows from yield and mean volume (S2.6).
    """
    t = np.maximum(time_s, 0.0)
    left = np.exp(-np.maximum(t - growth.nucleation_s, 0.0) / growth.radius_time_s)
    ripening = 1 + np.maximum(t - growth.ripening_start_s, 0.0) / growth.ripening_time_s
    grown = growth.radius_end_nm - (growth.radius_end_nm - growth.radius_start_nm) * left
    sigma = growth.sigma_end_nm - (growth.sigma_end_nm - growth.sigma_start_nm) * left
    radius = _radius((grown**3 + 3 * grown * sigma**2) * ripening, sigma * ripening)
    remaining = growth.yield_end * np.exp(-t / growth.conversion_time_s)
    small, width = (np.full_like(t, x) for x in (growth.agglomerate_radius_nm, growth.agglomerate_sigma_nm))
    return (
        _holding(growth, growth.yield_end - remaining, time_s, (radius, sigma * ripening), growth.lattice_parameter_nm),
        _holding(growth, remaining, time_s, (small, width), growth.agglomerate_lattice_nm),
    )


def _holding(
    growth: Coexistence, yield_: Floats, time_s: Floats, sizes: tuple[Floats, Floats], lattice_nm: float
) -> Truth:
    """The population of these r and σ_r that holds this share of the cations; nothing before the injection."""
    before, (radius, sigma) = time_s < 0, sizes
    cations = cations_per_crystal(mean_volume(radius, sigma * sigma), lattice_nm, growth.cations_per_cell)
    found = np.where(before, 0.0, yield_)
    return Truth(
        time_s=time_s,
        radius_nm=np.where(before, np.nan, radius),
        sigma_nm=np.where(before, np.nan, sigma),
        c_umol_L=1e3 * growth.cation_concentration_mmol_L * found / cations,
        yield_=found,
    )


def coexistence_contrasts(growth: Coexistence, energy_keV: float) -> tuple[float, float]:
    """Scattering length densities of crystals and agglomerates above the solvent's, 1/Å²."""
    solvent = scattering_length_density(growth.solvent, growth.solvent_g_cm3, energy_keV)
    densities = (
        crystal_density(growth.formula, cell, growth.cations_per_cell)
        for cell in (growth.lattice_parameter_nm, growth.agglomerate_lattice_nm)
    )
    crystals, agglomerates = (scattering_length_density(growth.formula, d, energy_keV) - solvent for d in densities)
    return crystals, agglomerates


# --- beamtimes -------------------------------------------------------------------------------------------------------

_KEV_M = 1.239841984e-9  # photon energy (keV) times wavelength (m)
_FOUR_MM = Uncertain(4.0, 0.012)
_WATER_1_MM = Uncertain(1.65e-3, 8.25e-6)  # Dreiss et al. 2006, J. Appl. Cryst. 39, 32


@dataclass(frozen=True)
class Scenario:
    """A beamtime in numbers: lengths in m, thickness in mm, cross sections in 1/mm, detector values in ADU."""

    title: str
    sample: str = "cdse"  # in the names of files
    layouts: tuple[str, ...] = ("id02", "edf", "mccd", "cbf", "p21")  # as `io.layouts` has them, its own first
    growth: Growth | Coexistence = field(default_factory=Growth)
    contrast_1_A2: float = 35.2e-6  # of the crystals of a Growth
    # camera
    detector: str = "Rayonix"
    shape: tuple[int, int] = (480, 480)
    pixel_m: float = 354.1667e-6
    distance_m: float = 1.0
    centre_px: tuple[float, float] = (240.3, 238.6)
    energy_keV: float = 18.0
    polarization: float = 0.97
    # detector
    gain: float = 1.6
    pedestal: float = 10.0
    dark_adu: float = 0.4
    read_noise: float = 2.0
    saturation: int = 65000
    # beam: photons/s that would be counted before the sample, and what the uncalibrated monitors make of a photon
    beam_photons_s: float = 1.8e11
    monitor_per_photon: float = 1.073
    monitor_counts_s: float = 2e7
    transmissions: Mapping[str, float] = field(
        default_factory=lambda: {"sample": 0.42, "water": 0.30, "empty": 0.46, "agbh": 0.35, "dark": 0.0}
    )
    # sample and cells
    solvent_1_mm: float = 7e-3
    window_flat: float = 5e-3
    window_porod_nm4: float = 1e-5
    rings: tuple[float, float] = (0.05, 0.025)
    sample_mm: Uncertain = _FOUR_MM
    water_mm: Uncertain = _FOUR_MM
    water_1_mm: Uncertain = _WATER_1_MM
    # timing of the scan (Prins SI, S1.4) and of the references; one frame in `1/before_share` is before the injection
    frames: int = 575
    exposure_s: float = 0.075
    wait_s: float = 0.022
    wait_growth: float = 1.015
    before_share: float = 80 / 575
    reference_s: float = 1.0
    references: Mapping[str, int] = field(default_factory=lambda: {"water": 5, "empty": 5, "dark": 10, "agbh": 1})
    # a P21.2-like sweep of it: constant exposure and period, and how long it lasts; None: timed as it is anywhere
    sweep_exposure_s: float = 0.1
    sweep_s: float | None = 1200.0
    # what the run file asks for: q of the integration, of the fit and of water, 1/nm; times of curves to show
    q_nm: tuple[float, float] = (0.1, 5.0)
    fit_nm: tuple[float, float] = (0.15, 5.0)
    water_nm: tuple[float, float] = (1.0, 4.0)
    shown_s: tuple[float, ...] = (1.8, 5.3, 11.0, 22.0, 76.0, 4680.0)  # Prins SI, Fig. S2.1

    @property
    def wavelength_m(self) -> float:
        """Wavelength of the beam."""
        return _KEV_M / self.energy_keV

    def populations(self, time_s: Floats) -> tuple[tuple[Truth, float], ...]:
        """What there is to find at times (n,) in s after the injection, with contrasts in 1/Å², the main one first."""
        if isinstance(self.growth, Growth):
            return ((growth_truth(time_s, self.growth), self.contrast_1_A2),)
        contrasts = coexistence_contrasts(self.growth, self.energy_keV)
        return tuple(zip(coexistence_truth(time_s, self.growth), contrasts, strict=True))


CDSE_AT_ID02 = Scenario("CdSe hot injection at 260 °C, simulated")

CSPBBR3_AT_P21 = Scenario(
    "CsPbBr3 from TOPO/PbBr2 at P21.2, simulated",
    sample="cspbbr3",
    layouts=("p21", "cbf"),
    growth=Coexistence(),
    # a photon counter with the beam near its corner; which detector the paper used is not known
    detector="PILATUS3 X CdTe",
    shape=(619, 487),
    pixel_m=172e-6,
    distance_m=3.5,
    centre_px=(40.4, 60.7),
    energy_keV=37.5,
    polarization=0.99,
    gain=1.0,
    pedestal=0.0,
    dark_adu=0.0,
    read_noise=0.0,
    beam_photons_s=6e11,
    transmissions={"sample": 0.84, "water": 0.80, "empty": 0.90, "agbh": 0.75},
    solvent_1_mm=2.9e-3,  # hexane at 25 °C, (ρ_e r_e)² k_B T χ_T with 1.67e-9 1/Pa
    frames=640,  # every 0.5 s, from 20 s before the injection to 300 s after it
    exposure_s=0.49,
    wait_s=0.01,
    wait_growth=1.0,
    before_share=40 / 640,
    references={"water": 5, "empty": 5, "agbh": 1},
    sweep_s=None,
    q_nm=(0.1, 4.2),
    fit_nm=(0.2, 4.0),
    shown_s=(0.5, 5.5, 10.5, 15.5, 299.0),  # Montanarella et al., Fig. 1a
)
