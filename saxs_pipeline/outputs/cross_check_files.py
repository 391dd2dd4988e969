"""A size distribution held against McSAS3's, as files: JSON, table of both, figure; and its rows for the terminal."""

from __future__ import annotations

import json
import math
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from saxs_pipeline import __version__
from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.size_distribution import SHAPE_COLUMNS, SIZE_COLUMNS, CrossCheck
from saxs_pipeline.types import Floats

MADE_BY = "saxs-pipeline cross-check"
FILES = ("cross_check.json", "cross_check.dat", "cross_check.png", "cross_check.svg")
_NOT_AN_ERROR = "spread of repetitions, not an error bar"


def write_cross_check(check: CrossCheck, folder: Path) -> None:
    """Write all files into an existing folder. OSError if that fails."""
    from saxs_pipeline.outputs.figure_files import write_drawings
    from saxs_pipeline.outputs.plot_cross_check import draw_cross_check

    (drawn,) = write_drawings([partial(draw_cross_check, check)], folder)
    _write_table(check, folder / "cross_check.dat")
    content = _content(check) | {"caption": drawn.caption}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "cross_check.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")


# --- text ------------------------------------------------------------------------------------------------------------


def rows(check: CrossCheck) -> list[tuple[str, str]]:
    """Both methods side by side, and whether their mean radii agree."""
    sizes, other = check.sizes, check.other
    found = [
        ("curve", check.source),
        ("q", f"{sizes.q_min:.4g} to {sizes.q_max:.4g} nm⁻¹, {other.points} points"),
        ("radii", f"{sizes.radius_nm[0]:.4g} to {sizes.radius_nm[-1]:.4g} nm"),
        ("", f"{'sizes':<27} McSAS3 {other.version} ({_NOT_AN_ERROR})"),
        ("mean radius", _beside(_own(check, "mean_nm", "nm"), _spread(other.mean_nm, "nm"))),
        ("width", _beside(_own(check, "width_nm", "nm"), _spread(other.width_nm, "nm"))),
    ]
    if sizes.absolute:
        found.append(("volume fraction", _beside(_own(check, "volume_fraction", ""), _spread(other.volume, ""))))
    if check.unit == "1/mm":
        constant = _beside(_own(check, "background_1_mm", "mm⁻¹"), _spread(other.background, "mm⁻¹"))
        found.append(("background", constant))
    own = float(sizes.value("chi2_red")[0])
    found.append(("χ²", _beside(f"{own:.4g} reduced", f"{other.chi2.mean():.4g} per point")))
    return [*found, ("verdict", _verdict(check)), *_remarks(check)]


def _beside(own: str, other: str) -> str:
    return f"{own:<27} {other}"


def _own(check: CrossCheck, column: str, unit: str) -> str:
    """ "2.2411 ± 0.0008 nm"; "< 0.029 nm" for a width that is not resolved."""
    value, error = float(check.sizes.value(column)[0]), float(check.sizes.error(column)[0])
    if column == "width_nm" and not math.isfinite(error):
        return f"< {value:#.2g} {unit}"
    return plus_minus(value, error, unit=unit)


def _spread(values: Floats, unit: str) -> str:
    return plus_minus(float(values.mean()), float(values.std(ddof=1)), unit=unit)


def _verdict(check: CrossCheck) -> str:
    apart, combined = abs(check.difference_nm), check.combined_nm
    lower = "lower" if check.difference_nm < 0 else "higher"
    return (
        f"the mean radii {'agree' if check.agree else 'DIFFER'}: McSAS3's is {lower} by {apart:.2g} nm, "
        f"{apart / combined:.2g} of error and scatter combined ({combined:.2g} nm); up to 2 count as agreement"
    )


def _remarks(check: CrossCheck) -> list[tuple[str, str]]:
    other, flag = check.other, check.sizes.flags[0]
    repetitions, spheres = other.radius_nm.shape
    share = 100 * check.small.mean()
    text = (
        f"{share:.2g} % of McSAS3's volume is below half the mean radius, where spheres scatter little for their volume"
        f"; without it its mean radius is {_spread(check.mean_without_small_nm, 'nm')}"
    )
    found = [("small spheres", text)] if share > 0 else []
    found += [("time", f"{other.seconds:.3g} s for {repetitions} repetitions of {spheres} spheres")]
    if flag:
        found.append(("note", f"the frame's distribution is flagged {flag}"))
    if missed := int((other.chi2 > other.target).sum()):
        found.append(
            ("note", f"{missed} repetitions ended above χ² {other.target:.4g}, after {other.moves.max()} moves")
        )
    return found


# --- data ------------------------------------------------------------------------------------------------------------


def _content(check: CrossCheck) -> dict[str, Any]:
    """What cross_check.json holds; null where there is no number. Lengths nm, q 1/nm."""
    sizes, other = check.sizes, check.other
    return {
        "made_by": MADE_BY,
        "source": check.source,
        "frame": check.frame,
        "q_1_nm": [sizes.q_min, sizes.q_max],
        "points": other.points,
        "radius_nm": [float(sizes.radius_nm[0]), float(sizes.radius_nm[-1])],
        "absolute": sizes.absolute,
        "sizes": _own_content(check),
        "mcsas3": _other_content(check),
        "means": {
            "difference_nm": check.difference_nm,
            "combined_nm": check.combined_nm,
            "share_of_mcsas3_below_half_the_mean": float(check.small.mean()),
            "mcsas3_mean_without_it_nm": _number(check.mean_without_small_nm.mean()),
            "agree": check.agree,
            "criterion": "difference at most twice the combined standard error and scatter of repetitions",
        },
        "versions": {
            "saxs_pipeline": __version__,
            "mcsas3": other.version,
            **{name: version(name) for name in ("numpy", "scipy")},
        },
    }


def _own_content(check: CrossCheck) -> dict[str, Any]:
    sizes = check.sizes
    found: dict[str, Any] = {
        name: {"value": _number(sizes.value(name)[0]), "error": _number(sizes.error(name)[0])} for name in SIZE_COLUMNS
    }
    volume = sizes.value("volume_fraction")[0]
    found["volume_fraction"]["systematic"] = _number(sizes.scale_rel * abs(volume))
    found |= {name: _number(sizes.value(name)[0]) for name in SHAPE_COLUMNS}
    return found | {"flag": sizes.flags[0] or "ok"}


def _other_content(check: CrossCheck) -> dict[str, Any]:
    """Means over the repetitions, their spread, and the repetitions one by one."""
    other = check.other
    columns = {"mean_nm": other.mean_nm, "width_nm": other.width_nm, "chi2_per_point": other.chi2}
    if check.sizes.absolute:
        columns["volume_fraction"] = other.volume
    if check.unit == "1/mm":
        columns["background_1_mm"] = other.background
    values: dict[str, Any] = {
        name: {"value": float(v.mean()), "spread_of_repetitions": float(v.std(ddof=1)), "repetitions": v.tolist()}
        for name, v in columns.items()
    }
    return values | {
        "settings": {
            "repetitions": len(other.chi2),
            "contributions": other.radius_nm.shape[1],
            "seeds": list(range(len(other.chi2))),
            "chi2_per_point_to_reach": other.target,
            "scale_and_constant": "solved exactly in each move",
        },
        "moves": other.moves.tolist(),
        "reached": (other.chi2 <= other.target).tolist(),
        "seconds": round(other.seconds, 3),
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _write_table(check: CrossCheck, path: Path) -> None:
    """Both densities on the radii of the inversion."""
    sizes, density = check.sizes, check.other.density(check.sizes.radius_nm)
    unit = "volume fraction per nm, 1/nm" if sizes.absolute else "volume per nm, arbitrary unit"
    columns = [sizes.radius_nm, sizes.bin_nm, sizes.density[0], sizes.density_err[0]]
    columns += [density.mean(axis=0), density.std(axis=0, ddof=1)]
    lines = [
        f"# {check.source}",
        f"# radius and width of its bin in nm; densities: {unit}; err: standard error; spread: of McSAS3's repetitions",
        "# radius_nm bin_nm density density_err mcsas3_density mcsas3_spread",
        *(" ".join(f"{x:.10g}" for x in row) for row in np.column_stack(columns)),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
