"""How a result came to be: run file, versions, inputs, equations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from saxs_pipeline import __version__
from saxs_pipeline.io.frames import file_state
from saxs_pipeline.runfile import RunFile, digest, input_paths
from saxs_pipeline.types import InputFile, Provenance

if TYPE_CHECKING:
    from saxs_pipeline.plan import Plan

PACKAGES = ("numpy", "scipy", "numba", "pyFAI", "fabio", "h5py", "dask")

EQUATIONS = (
    "I(q) = K sum(S - b - D tau) / sum(F eps Omega_rel P) / (Omega_0 monitor d), tau = 1 or t/t_dark, eps: sensor",
    "variance of sum(S - b - D tau) = gain sum(S - b - D tau) + N read_noise^2, ADU^2, at least half of the latter",
    "outliers, where left out: |pull| > threshold max(1, rms pull of the others in the bin), docs/adr/0013",
    "dark_sigma = sqrt(sum var D) / sum(F eps Omega_rel P), common to all frames, of which each has dark_factor times",
    "re-binned: means weighted by pixels",
    "K = (dSigma/dOmega)_water / <(I_water - I_empty) / d_water>",
    "dSigma/dOmega of water from its temperature = (rho_e r_e)^2 k_B T chi_T (Kell 1975)",
    "K = sum w R^2 / sum w R (I_carbon - I_background) / d_carbon, R certified (NIST SRM 3600), w ~ 1 / sigma^2",
    "I_sub = I - f B; sigma^2 = statistical^2 + shared^2 + (dark_factor dark_sigma)^2 (shared: of B)",
    "monitor and background's factor move whole curves, v = rel (I + f B) and rel f B: cov += (G v)(G v)^T, G = dp/dI",
    "I_fit = sum c_NC N_A <P(q, R)> + d q^-p + b, number distributions of R (Prins SI S2.1-S2.3, 9 in place of 36 pi)",
    "<P S(q, R + shell)> with a structure factor: Percus-Yevick hard spheres, local monodisperse approximation",
    "n_Cd = cations_per_cell <V> / a^3 (S2.5); yield = c_NC n_Cd / c_Cd,0 (S2.6)",
)


@cache
def versions() -> dict[str, str]:
    """Of this package and of those that its numbers come from."""
    return {"saxs_pipeline": __version__, **{name: version(name) for name in PACKAGES}}


def collect(run: RunFile, plan: Plan) -> Provenance:
    """Provenance of a run: everything that could change its numbers, and nothing that could not (no clock)."""
    return Provenance(
        config_text=_text(run),
        config_digest=digest(run),
        versions=versions(),
        inputs=_inputs(run, () if plan.series is None else plan.series.info.paths),
        equations=EQUATIONS,
        geometry={} if plan.spec is None else dict(plan.spec.geometry),
        notes=() if plan.series is None else (f"times: {plan.series.time_origin}",),
    )


def same(run: RunFile, before: Provenance) -> bool:
    """Whether results of this provenance are what the run would give: run file, inputs and versions are the same."""
    base = run.path.resolve().parent
    then = {base / file.path: (file.size, file.mtime_ns) for file in before.inputs}
    now = {path: file_state(path) for path in (*input_paths(run), *then)}
    return (before.config_text, before.config_digest, before.versions, then) == (
        _text(run),
        digest(run),
        versions(),
        now,
    )


def _text(run: RunFile) -> str:
    """The run file as written, and behind it the kinetic parameter file it names."""
    if run.kinetics is None:
        return run.text
    return f"{run.text.rstrip()}\n\n# --- {run.kinetics.path.name} ---\n{run.kinetics.text}"


def _inputs(run: RunFile, more: Iterable[Path] = ()) -> tuple[InputFile, ...]:
    """The files that the run file names, and those that these lead to."""
    base = run.path.resolve().parent
    return tuple(
        InputFile(str(p.relative_to(base) if p.is_relative_to(base) else p), *file_state(p))
        for p in dict.fromkeys((*input_paths(run), *more))
    )


@cache
def source_digest() -> str:
    """SHA-256 of this package's own source: frames finished by other code are not taken from checkpoints."""
    folder = Path(__file__).parent
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        if path.relative_to(folder).parts[0] not in ("apps", "outputs"):
            content.update(path.read_bytes())
    return content.hexdigest()
