"""What the results themselves say against the run file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saxs_pipeline.model_spec import ModelSpec
from saxs_pipeline.science.distributions import mean_volume
from saxs_pipeline.science.quantities import volume_fraction
from saxs_pipeline.stages.fit import POOR
from saxs_pipeline.types import Curves, Floats, Quantities

CROWDED = 0.01
"""Volume fraction from which interference, S(0) ≈ 1 − 8η of hard spheres, is no longer small."""


def doubts(model: ModelSpec | None, curves: Curves, populations: Sequence[Quantities]) -> list[str]:
    """One line for each thing that cannot be, or is doubtful, about all populations, () without fits."""
    if model is None or not populations:
        return []
    found = [
        _impossible(populations),
        _sizeless(model, curves, populations),
        _crowded(model, populations),
        _out_of_range(model, populations),
    ]
    chi2 = populations[0].chi2_red[curves.usable]
    if np.isfinite(chi2).any() and np.nanmedian(chi2) > POOR:
        found.append(
            f"median χ²_red {np.nanmedian(chi2):.3g}: the model does not describe the curves, or σ is too small, or "
            "mask, orientation or beam centre are wrong"
        )
    return [text for text in found if text]


def _together(parts: Sequence[Floats]) -> Floats:
    """Sum over populations, (n,); one that is not reported adds nothing."""
    return np.asarray(np.nansum(np.stack(parts), axis=0))


def _impossible(populations: Sequence[Quantities]) -> str:
    """Says if there is more in the crystals of one population, or of all, than was put in."""
    yields = [one.yield_ for one in populations]
    errors = [np.hypot(one.statistical, one.systematic) for one in yields]
    values = [*(one.value for one in yields), _together([one.value for one in yields])]
    too_much = np.zeros(len(populations[0].index), dtype=bool)
    for value, error in zip(values, [*errors, _together(errors)], strict=True):  # the scale moves all alike
        with np.errstate(invalid="ignore"):
            too_much |= value - 3 * error > 1
    if not too_much.any():
        return ""
    return (
        f"the yield exceeds 100 % in {too_much.sum()} frames: check sample.cation_concentration, the contrast, "
        "the thickness, the monitor and the dark"
    )


def _sizeless(model: ModelSpec, curves: Curves, populations: Sequence[Quantities]) -> str:
    """Says if no frame supports a radius of any population, or of the one that the analysis is of."""
    sized = [bool(np.isfinite(one.radius_nm.value).any()) for one in populations]
    if curves.usable.sum() <= 1 or sized[0]:
        return ""
    if any(sized):
        names = [one.name for one in model.populations]
        return (
            f"no frame supports a radius of {names[0]}, the first of model.populations, which the analysis of the "
            f"series is of: check its radius and sigma, or put {names[sized.index(True)]} first"
        )
    keys = "model.radius and model.sigma" if len(sized) == 1 else "radius and sigma of model.populations"
    return f"no frame supports a radius: check {keys}, and that the background frames lie before the crystals"


def _out_of_range(model: ModelSpec, populations: Sequence[Quantities]) -> str:
    """Says in how many frames an exponent or a volume fraction lies beyond the range it was given."""
    beyond = np.any([["out_of_range" in flag.split("|") for flag in one.flags] for one in populations], axis=0)
    ranges = (("model.power_law", model.power_law), ("model.structure_factor.volume_fraction", model.volume_fraction))
    keys = [key for key, ends in ranges if ends is not None and ends[0] < ends[1]]
    if not beyond.any():
        return ""
    return (
        f"in {beyond.sum()} frames {' or '.join(keys)} lies beyond its range (out_of_range); they are left out of "
        "the analysis of the series: widen the range, or the model is another"
    )


def _crowded(model: ModelSpec, populations: Sequence[Quantities]) -> str:
    """Says if the crystals are so many that interference between them lowers what is taken for c."""
    if model.volume_fraction is not None:
        return ""
    shares = []
    for one in populations:
        variance = np.nan_to_num(one.sigma_nm.value) ** 2
        volume = mean_volume(one.radius_nm.value, variance, model.distribution)
        shares.append(volume_fraction(one.c_nc_umol_L.value, volume))
    share = float(np.max(_together(shares), initial=0.0))
    if share < CROWDED:
        return ""
    return (
        f"the crystals take {100 * share:.2g} % of the volume: interference lowers I(0), and c with it, by about "
        f"{800 * share:.2g} %, more with their ligands; fit it with model.structure_factor"
    )
