"""The population balance by the method of lines on a fixed grid: an independent, slow and diffusive reference.

Only the rate laws are shared with the solver under test. The supersaturation is either quasi-stationary or a full
unknown with S = 1 at the start (S6.5 with the nuclei as placed).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import erf

from saxs_pipeline.science.kinetics import Synthesis, growth_rate, nucleation_rate


@dataclass(frozen=True)
class Grid:
    """Cells between edges (n + 1,) in nm; crystals below the smallest radius stay where they are."""

    edges: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def cubes(self) -> np.ndarray:
        """Mean r³ of each cell."""
        return np.diff(self.edges**4) / (4 * np.diff(self.edges))


class MethodOfLines:
    """d/dt of the number of crystals per cell (mol/m³), with upwind or Koren-limited fluxes."""

    def __init__(self, synthesis: Synthesis, cells: int, flux: str, largest_nm: float = 4.0) -> None:
        self.synthesis, self.flux = synthesis, flux
        self.grid, self.width = Grid(np.linspace(0, largest_nm, cells + 1)), largest_nm / cells
        self.monomers = 4 * math.pi / 3 * 1e-27 / synthesis.monomer_volume_m3 * self.grid.cubes
        self.log_s, self.capillary = 5.0, 0.0
        self.heat(0.0)

    def heat(self, time: float) -> None:
        """Speeds through the inner faces, gain·S − loss in cells per s, at the temperature of that time."""
        capillary = self.synthesis.capillary_m(time)
        if capillary == self.capillary:
            return
        faces = self.grid.edges[1:-1] * 1e-9
        live = faces >= self.synthesis.smallest_m
        at_1, at_2 = (growth_rate(faces[live], s, self.synthesis, capillary) / (self.width * 1e-9) for s in (1.0, 2.0))
        self.capillary, self.gain, self.loss = capillary, np.zeros(len(faces)), np.zeros(len(faces))
        self.gain[live], self.loss[live] = at_2 - at_1, at_2 - 2 * at_1

    def nuclei(self, log_s: float) -> np.ndarray:
        """Births per cell, mol/m³/s: the Gaussian integrated over each."""
        s = self.synthesis
        rate = nucleation_rate(math.exp(log_s), s, self.capillary) if log_s > 0 else 0.0
        if rate == 0:
            return np.zeros(len(self.grid.centres))
        middle = (self.capillary / log_s + s.nucleus_offset_m) * 1e9
        shares = np.diff(erf((self.grid.edges - middle) / (math.sqrt(2) * s.nucleus_sd_m * 1e9))) / 2
        return rate * shares

    def face_values(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cell contents carried through each inner face by growth and by dissolution."""
        if self.flux == "upwind":
            return n[:-1], n[1:]
        padded = np.concatenate([[0.0], n, [0.0]])
        step = np.diff(padded)
        forward = n[:-1] + koren(step[1:-1], step[:-2][: len(n) - 1]) / 2
        backward = n[1:] + koren(-step[1:-1], -step[2:]) / 2
        return forward, backward

    def flows(self, faces: tuple[np.ndarray, np.ndarray], s: float) -> np.ndarray:
        speed = self.gain * s - self.loss
        return speed * np.where(speed > 0, *faces)

    def uptake(self, faces: tuple[np.ndarray, np.ndarray], log_s: float) -> float:
        grown = self.flows(faces, math.exp(log_s)) @ np.diff(self.monomers)
        return float(grown + self.nuclei(log_s) @ self.monomers)

    def quasi_stationary(self, faces: tuple[np.ndarray, np.ndarray], generation: float) -> float:
        def surplus(log_s: float) -> float:
            return self.uptake(faces, log_s) - generation

        low, high = self.log_s - 0.05, self.log_s + 0.05
        while surplus(low) > 0:
            low -= 0.5
        while surplus(high) < 0:
            high += 0.5
        self.log_s = float(brentq(surplus, low, high, xtol=1e-12, rtol=1e-12))
        return self.log_s

    def change(self, faces: tuple[np.ndarray, np.ndarray], log_s: float) -> np.ndarray:
        flow = np.concatenate([[0.0], self.flows(faces, math.exp(log_s)), [0.0]])
        return self.nuclei(log_s) - np.diff(flow)

    def rhs(self, time: float, n: np.ndarray) -> np.ndarray:
        self.heat(time)
        faces = self.face_values(n)
        generation = float(self.synthesis.conversion.rate(np.asarray(time)))
        return self.change(faces, self.quasi_stationary(faces, generation))

    def rhs_dynamic(self, time: float, state: np.ndarray) -> np.ndarray:
        """The same with ln S as the last unknown."""
        n, log_s = state[:-1], float(state[-1])
        self.heat(time)
        faces = self.face_values(n)
        generation = float(self.synthesis.conversion.rate(np.asarray(time)))
        dlog_s = (generation - self.uptake(faces, log_s)) / (self.synthesis.solubility_mol_m3 * math.exp(log_s))
        return np.append(self.change(faces, log_s), dlog_s)

    def stride(self, n: np.ndarray, since: float) -> float:
        """Step: 0.8 cells at the fastest face that carries crystals, 5 % of the time since a jump at most."""
        carries = np.maximum(n[:-1], n[1:]) > EMPTY * n.sum()
        speed = np.abs(self.gain * math.exp(self.log_s) - self.loss)[carries]
        return min(0.8 / speed.max(initial=1e-9), 0.05 * (since + 0.05))


def koren(downstream: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """φ(θ)·upstream difference with Koren's limiter φ = max(0, min(2θ, (1 + 2θ)/3, 2)), θ = downstream/upstream."""
    same = downstream * upstream > 0
    down, up = np.abs(downstream), np.abs(upstream)
    size = np.minimum(np.minimum(2 * down, (up + 2 * down) / 3), 2 * up)
    return np.where(same, np.sign(upstream) * size, 0.0)


EMPTY = 1e-10
"""Share of all crystals below which a cell counts as empty, so that faces nobody crosses do not set the step."""


def ssp(lines: MethodOfLines, end_s: float) -> np.ndarray:
    """Shu and Osher's third-order strong-stability-preserving Runge-Kutta steps."""
    n, time = np.zeros(len(lines.grid.centres)), 0.0
    lines.rhs(0.0, n)
    breaks = sorted({*lines.synthesis.conversion.breaks_s, *lines.synthesis.temperature_breaks_s})
    for stop in [*(t for t in breaks if t < end_s), end_s]:
        begun = time
        while time < stop:
            h = min(lines.stride(n, time - begun), stop - time)
            end = math.nextafter(time + h, 0)
            first = n + h * lines.rhs(time, n)
            second = 0.75 * n + (first + h * lines.rhs(end, first)) / 4
            n = n / 3 + (second + h * lines.rhs(time + h / 2, second)) * 2 / 3
            n[n < EMPTY * n.sum()] = 0.0
            time = time + h if stop - time > h else stop
    return n


def lsoda(lines: MethodOfLines, end_s: float) -> np.ndarray:
    """Stiff steps with a banded Jacobian: cheap for upwind fluxes, slow where a limiter switches."""
    start, options = np.zeros(len(lines.grid.centres)), {"lband": 2, "uband": 2, "first_step": 1e-6}
    found = solve_ivp(lines.rhs, (0, end_s), start, method="LSODA", rtol=1e-6, atol=1e-12, **options)
    assert found.success, found.message
    return found.y[:, -1]


def dynamic(lines: MethodOfLines, end_s: float, rtol: float = 1e-7) -> np.ndarray:
    """BDF with ln S as an unknown of its own, S = 1 at the start."""
    start = np.zeros(len(lines.grid.centres) + 1)
    found = solve_ivp(lines.rhs_dynamic, (0, end_s), start, method="BDF", rtol=rtol, atol=1e-14, first_step=1e-9)
    assert found.success, found.message
    return found.y[:-1, -1]


def develop(
    synthesis: Synthesis, end_s: float, cells: int, flux: str, steps: Callable[[MethodOfLines, float], np.ndarray] = ssp
) -> tuple[float, float, float]:
    """(c µmol/L, mean r nm, σ nm) at end_s."""
    lines = MethodOfLines(synthesis, cells, flux)
    n, r = steps(lines, end_s), lines.grid.centres
    mean = float(n @ r / n.sum())
    return 1e3 * float(n.sum()), mean, math.sqrt(n @ (r - mean) ** 2 / n.sum() + lines.width**2 / 12)
