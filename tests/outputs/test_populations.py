"""Two populations in tables and figures: each is judged by its own words, and their order does not matter."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from saxs_pipeline.outputs import flags, nexus, populations, report, tables
from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.outputs.plot_populations import draw_populations
from saxs_pipeline.outputs.plot_series import draw_concentration_yield, draw_radius
from saxs_pipeline.types import Estimate, FitTable
from tests.outputs.known_run import make_result
from tests.spheres import two_populations

N = 40


def with_flags(quantities, words):
    """The same numbers with other words; r and σ_r are not reported where there is one of the fit's own."""
    lost = np.array([not set(flag.split("|")).isdisjoint({"not_converged", "weak"}) for flag in words])
    sized = {
        name: Estimate(*(np.where(lost, np.nan, part) for part in getattr(quantities, name)))
        for name in ("radius_nm", "sigma_nm")
    }
    return replace(quantities, flags=tuple(words), **sized)


@pytest.fixture(scope="module")
def pair():
    """Crystals that could not be fitted in frames 30 to 34 and are there to the end; agglomerates to frame 36."""
    whole = make_result(N)
    clean = replace(whole.curves, problems=("",) * N, notes=("",) * N)
    filled = {
        name: Estimate(*(np.nan_to_num(part, nan=0.5) for part in getattr(whole.quantities, name)))
        for name in ("radius_nm", "sigma_nm", "c_nc_umol_L", "yield_")
    }
    known = replace(whole.quantities, **filled)
    crystals = with_flags(known, ["not_converged" if 30 <= k < 35 else "ok" for k in range(N)])
    agglomerates = with_flags(known, ["weak" if k > 36 else "ok" for k in range(N)])
    return replace(whole, curves=clean), crystals, agglomerates


def result_of(pair, *, swapped=False):
    whole, *both = pair
    model = two_populations(1.0)
    names = [one.name for one in model.populations]
    if swapped:
        both, names, model = both[::-1], names[::-1], replace(model, populations=model.populations[::-1])
    p = len(model.columns)
    fits = FitTable(
        whole.fits.index, np.ones((N, p)), np.zeros((N, p, p)) + 1e-4 * np.eye(p), np.ones((N, p), dtype=bool),
        np.ones(N), np.full(N, 199), np.ones(N, dtype=bool), ("",) * N, model.spec, (("",) * N,),
    )  # fmt: skip
    return replace(whole, fits=fits, quantities=both[0], others=((names[1], both[1]),))


def test_a_frame_is_sound_if_the_fit_of_any_population_is(pair):
    for swapped in (False, True):
        result = result_of(pair, swapped=swapped)
        assert flags.sound(result).all()
        by_name = {name: flags.sound(result, one) for name, one in flags.populations(result)}
        assert np.flatnonzero(~by_name["crystals"]).tolist() == [30, 31, 32, 33, 34]
        assert by_name["agglomerates"].all()
        assert tables.last_reported(result) == 39
        assert tables.last_reported(result, dict(flags.populations(result))["agglomerates"]) == 36


def test_the_summary_says_the_same_in_either_order(pair):
    told = []
    for swapped in (False, True):
        rows = tables.summary(result_of(pair, swapped=swapped))
        told.append({what: text for what, text in rows if "flagged" in what or what == "frames"})
    assert told[0] == told[1]
    assert told[0]["frames"] == "40, of which 40 sound and 0 excluded"
    assert told[0]["crystals: flagged"] == "not_converged: 5" and told[0]["agglomerates: flagged"] == "weak: 3"


def test_points_of_one_population_are_drawn_where_the_other_one_failed(pair):
    drawn = []
    for swapped in (False, True):
        upper = draw_populations(result_of(pair, swapped=swapped)).figure.axes[0]
        points = (len(line.get_xdata()) for line in upper.lines if line.get_marker() == "o")
        drawn.append(sorted(number for number in points if number))
    assert drawn[0] == drawn[1]
    visible = make_result(N).curves.time_s > 0
    assert drawn[0] == sorted([int(visible.sum()) - 5, int(visible.sum()) - 3])


def test_a_first_population_that_is_never_there_hides_nothing_of_the_second(pair):
    result = result_of(pair)
    never = with_flags(result.quantities, ["weak"] * N)
    result = replace(result, quantities=never)
    assert tables.last_reported(result, never) is None
    assert tables.last_reported(result) == 36
    rows = dict(tables.summary(result))
    assert rows["last reported frame"] == "none: no frame supports a radius"
    assert "agglomerates: radius r" in rows and "χ² reduced" in rows


def test_a_population_that_is_never_seen_has_no_limit_and_that_is_said(pair):
    result = result_of(pair)
    nothing = Estimate(*np.full((3, N), np.nan))
    unseen = replace(result.others[0][1], radius_nm=nothing, c_nc_umol_L=nothing, flags=("weak",) * N)
    rows = dict(tables.summary(replace(result, others=(("agglomerates", unseen),))))
    assert rows["agglomerates: seen"] == "in no frame; no limit to its c, for want of a size"


def test_an_exponent_that_is_held_at_an_end_of_its_range_has_no_error(pair):
    whole = pair[0]
    model = two_populations(1.0, power_law=(3.0, 4.5))
    p, column = len(model.columns), model.columns.index("exponent")
    values, free = np.full((N, p), 3.7), np.ones((N, p), dtype=bool)
    values[30:, column], free[30:, column] = 3.0, False  # of the other 30 five are excluded
    fits = replace(
        result_of(pair).fits, values=values, free=free, model=model.spec,
        covariance=np.where(free[:, :, None], 1e-4 * np.eye(p), 0.0),
    )  # fmt: skip
    columns = populations.columns(replace(whole, fits=fits))
    errors = np.array(columns["exponent_err"], dtype=float)
    np.testing.assert_array_equal(np.isnan(errors), np.arange(N) >= 30)
    assert dict(populations.rows(replace(whole, fits=fits)))["exponent p"] == (
        "3 (held at an end of its range); fitted in 25 of 35 frames, best in 0: 3.700 ± 0.010"
    )
    fixed = replace(fits, model=replace(fits.model, power_law=(4.0, 4.0)), values=np.full((N, p), 4.0))
    covariance = fits.covariance.copy()
    covariance[:, column] = covariance[:, :, column] = 0.0
    fixed = replace(fixed, covariance=covariance, free=free & (np.arange(p) != column))
    assert dict(populations.rows(replace(whole, fits=fixed)))["exponent p"] == "4 (fixed)"


def test_a_size_that_is_held_is_said_to_be_fixed(pair):
    result = result_of(pair)
    held = (("agglomerates_radius", 2.0), ("crystals_sigma", 0.1))
    rows = dict(
        tables.summary(replace(result, fits=replace(result.fits, model=replace(result.fits.model, fixed=held))))
    )
    fixed = {what for what, text in rows.items() if text.endswith("(fixed)")}
    assert fixed == {"agglomerates: radius r", "crystals: spread σ_r"}


def test_a_population_that_vanishes_is_quoted_where_it_is_known_best(pair):
    """Sizes to frame 20, the best in 12; too weak for a size to 24; vanished from 25 on but in 39, where it is weak."""
    result = result_of(pair)
    one = result.others[0][1]
    sized, error = np.arange(N) <= 20, np.full(N, 0.05)
    error[12] = 0.01
    radius = Estimate(np.where(sized, 1.5, np.nan), np.where(sized, error, np.nan), np.zeros(N))
    radius.value[12] = 1.503
    words = ["ok"] * 21 + ["weak"] * 4 + ["vanished"] * 14 + ["weak"]
    vanishing = replace(one, radius_nm=radius, flags=tuple(words))
    rows = dict(tables.summary(replace(result, others=(("agglomerates", vanishing),))))
    time, c = one.time_s, one.c_nc_umol_L
    assert rows["agglomerates: seen"].endswith(
        f"in 21 frames; values of frame 12, at {time[12]:.4g} s, the one that tells its radius best"
    )
    assert rows["agglomerates: radius r"] == "1.503 ± 0.010 nm"
    said = rows["agglomerates: vanished"]
    assert said.startswith(f"from {time[25]:.4g} s on; before that, from {time[21]:.4g} s on, too weak for a size; ")
    assert f"; at {time[39]:.4g} s c is {plus_minus(c.value[39], c.statistical[39], unit='µmol/L')}" in said


def test_each_series_of_the_file_says_which_population_it_is(pair, tmp_path):
    nexus.write_run(result_of(pair), tmp_path / "run.nxs")
    with h5py.File(tmp_path / "run.nxs") as file:
        for group, name in (("series", "crystals"), ("series_agglomerates", "agglomerates")):
            assert file[f"entry/{group}"].attrs["population"] == name
            assert file[f"entry/{group}"].attrs["title"] == f"mean radius and spread of {name}"


def test_report_and_captions_say_whose_the_numbers_are(pair, tmp_path):
    result = result_of(pair)
    report.write(result, [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (
        "Flags of crystals",
        "Flags of agglomerates",
        "Table of the series, crystals",
        "columns of agglomerates",
    ):
        assert text in page, text
    agglomerates = page[page.index("Flags of agglomerates") :]
    assert "<td>weak</td><td>3</td><td>37–39</td>" in agglomerates
    for draw in (draw_radius, draw_concentration_yield):
        assert draw(result).caption.startswith("Crystals: ")
        assert not draw(pair[0]).caption.startswith("Crystals: ")
