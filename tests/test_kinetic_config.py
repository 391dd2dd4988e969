"""The parameter file: the published table as printed, units, every contradiction, settings over the file, positions."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saxs_pipeline import runfile
from saxs_pipeline.kinetic_config import ADSORPTION, CONVERSION, UNITS, CrystalSet, Injection, KineticModel, Scan
from saxs_pipeline.science import conversion, kinetics
from saxs_pipeline.types import BadInput

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PUBLISHED = CONFIGS / "kinetics-published.yaml"

GOOD = """\
title: a synthesis
T: 260 °C
v0: 0.0559 nm^3
gamma: 200 mJ/m^2
M0: 1e-4 µmol/L
D: 5e-6 cm^2/s
adsorption: superfocusing
A: 45 mm/s
n: 2
r_c0: 0.8 nm
B: 2 Å
desorption: true
nucleation: true
conversion: first_order
k1: 0.24 1/min
P0: 27 mmol/L
"""
SECOND_ORDER = [
    ("conversion: first_order", "conversion: second_order"),
    ("k1: 0.24 1/min", "k2: 0.14 L/mol/s\nbeta: 2.5"),
]
GROWTH_ONLY = [("nucleation: true", "nucleation: false\ncrystals: [{c: 25 µmol/L, r: 1.2 nm, sigma: 0.1 nm}]")]
TABLE = [
    ("conversion: first_order", "conversion: table\ngeneration: [[0 s, 0.05 mol/m^3/s], [4 min, 0.05 mol/m^3/s]]"),
    ("k1: 0.24 1/min\nP0: 27 mmol/L\n", ""),
]


def edited(*changes):
    text = GOOD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def load(folder, text, *settings):
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return runfile.load_model(path, settings)


def mistakes(folder, text, *settings):
    with pytest.raises(BadInput) as caught:
        load(folder, text, *settings)
    assert all("\n" not in line for line in caught.value.messages)
    return caught.value.messages


# --- the files that come with the package ----------------------------------------------------------------------------


def test_the_published_file_holds_table_s6_1():
    model = runfile.load_model(PUBLISHED).config
    table = {"D": 5e-10, "v0": 5.59e-29, "M0": 1e-7, "k1": 4e-3, "P0": 27.0, "gamma": 0.2, "A": 1 / 22}
    assert {symbol: model.value(symbol) for symbol in table} == table
    assert [model.value("B"), model.value("r_c0")] == pytest.approx([0.2e-9, 0.8e-9], rel=1e-15)
    assert (model.value("T"), model.value("prefactor"), model.value("n")) == (533.15, 1.0, 2.0)
    assert (model.desorption, model.nucleation) == (True, True)
    assert model.end_s == 2275.8
    assert model.snapshots_s == (3.16, 9.47, 28.34, 49.03, 84.83, 146.78, 253.96, 439.4, 2275.8)  # SI, S6.6
    assert model.scan_n == (0, 1, 2, 3, 4)


def test_the_calibrated_file_differs_from_the_published_one_as_it_says():
    published, calibrated = (
        runfile.load_model(CONFIGS / f"kinetics-{name}.yaml").config.model_dump(exclude={"title"})
        for name in ("published", "calibrated")
    )
    changed = {key: value for key, value in calibrated.items() if published[key] != value}
    assert changed == {"gamma": 0.18, "k1": 4.9e-3, "desorption": False}
    assert "published" not in runfile.load_model(CONFIGS / "kinetics-calibrated.yaml").config.title


def test_the_growth_only_file_is_the_case_of_the_reference_table():
    synthesis = runfile.load_model(CONFIGS / "kinetics-growth-only.yaml").config.synthesis({"n": 4.0})
    assert synthesis.diffusion_m2_s == np.inf
    assert not synthesis.desorption
    assert not synthesis.nucleation
    (crystals,) = synthesis.crystals
    assert [crystals.c_mol_m3, crystals.radius_m, crystals.sigma_m] == pytest.approx([0.025, 1.2e-9, 0.1e-9], rel=1e-14)
    assert synthesis.conversion.formed(np.array([0.0, 120.0, 240.0])) == pytest.approx([0, 6, 12])
    rate = synthesis.adsorption(np.array([0.8e-9, 1.6e-9]), 1e-9)
    assert rate == pytest.approx([1 / 22, 1 / 22 / 16], rel=1e-14)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("kinetics-*.yaml")), ids=lambda p: p.stem)
def test_every_parameter_file_loads_and_gives_a_synthesis(path):
    model = runfile.load_model(path).config
    synthesis = model.synthesis()
    assert synthesis.conversion.total_mol_m3 > 0
    assert max(model.snapshots_s) == model.end_s
    published = path.stem == "kinetics-published"
    assert ("as published" in model.title) == published


def test_the_bimodal_file_follows_the_recipe_of_the_si():
    """0.2 mmol Cd and 2 mmol Se in 12 mL, 0.4 mmol Cd more after 4 min (SI S5)."""
    source = runfile.load_model(CONFIGS / "kinetics-bimodal.yaml").config.synthesis().conversion
    assert isinstance(source, conversion.SecondOrder)
    assert source.rate_m3_mol_s == pytest.approx(0.125e-3)
    expected = [(0, 0.2 / 0.012, 2 / 0.012), (240, 0.4 / 0.012, 0)]
    assert np.array(source.injections) == pytest.approx(np.array(expected), rel=3e-3)


# --- units and symbols -----------------------------------------------------------------------------------------------


def test_quantities_in_any_unit_arrive_in_si(tmp_path):
    model = load(tmp_path, GOOD).config
    by_hand = {"T": 533.15, "v0": 5.59e-29, "gamma": 0.2, "M0": 1e-7, "D": 5e-10, "A": 0.045, "n": 2, "r_c0": 0.8e-9}
    by_hand |= {"B": 0.2e-9, "prefactor": 1, "k1": 4e-3, "P0": 27}
    assert model.symbols == tuple(by_hand)
    assert {symbol: model.value(symbol) for symbol in by_hand} == pytest.approx(by_hand, rel=1e-14)


def test_second_order_in_litres_and_its_partner(tmp_path):
    text = edited(*SECOND_ORDER) + "injections: [{time: 4 min, P0: 33 mM}, {time: 300 s, P0: 0 M, partner: 5 mM}]\n"
    model = load(tmp_path, text).config
    source = model.synthesis().conversion
    assert source.rate_m3_mol_s == pytest.approx(1.4e-4, rel=1e-14)
    assert np.array(source.injections) == pytest.approx(np.array([[0, 27, 67.5], [240, 33, 0], [300, 0, 5]]))
    assert {"k2", "beta"} < set(model.symbols)
    assert "k1" not in model.symbols
    assert model.synthesis({"beta": 1.0, "P0": 10.0}).conversion.injections[0] == (0, 10, 10)


def test_a_temperature_program_is_linear_between_its_points(tmp_path):
    model = load(tmp_path, edited(("T: 260 °C", "T: [[0 s, 230 °C], [1 min, 260 °C]]"))).config
    synthesis = model.synthesis()
    assert [synthesis.temperature_K(t) for t in (0, 30, 60, 1000)] == pytest.approx([503.15, 518.15, 533.15, 533.15])
    assert synthesis.temperature_breaks_s == (60,)
    assert "T" not in model.symbols
    with pytest.raises(KeyError):
        model.synthesis({"T": 500.0})


def test_changes_are_si_values_of_symbols_in_use(tmp_path):
    model = load(tmp_path, GOOD).config
    changes = {"A": 0.1, "n": 3.5, "gamma": 0.15, "k1": 1e-3, "T": 500.0, "prefactor": 2.0, "D": 1e-9, "B": 0.0}
    synthesis = model.synthesis(changes)
    assert synthesis.adsorption == kinetics.Superfocusing(0.1, 3.5, model.value("r_c0"), 0.0)
    assert synthesis.conversion == conversion.FirstOrder(1e-3, ((0.0, model.value("P0")),))
    assert (synthesis.surface_energy_J_m2, synthesis.nucleation_factor, synthesis.diffusion_m2_s) == (0.15, 2.0, 1e-9)
    assert synthesis.temperature_K(7.0) == 500.0
    for unused in ("k2", "alpha", "end", "nonsense"):
        with pytest.raises(KeyError, match=unused):
            model.synthesis({unused: 1.0})
        with pytest.raises(KeyError, match=unused):
            model.value(unused)


def test_a_table_of_rates_in_the_file_and_in_csv_are_the_same(tmp_path):
    inline = load(tmp_path, edited(*TABLE)).config
    (tmp_path / "rates.csv").write_text("t_s,rate_mol_m3_s\n0,0.05\n240,0.05\n")
    in_file = re.sub(r"generation: .*", "generation: rates.csv", edited(*TABLE))
    assert load(tmp_path, in_file).config.synthesis().conversion == inline.synthesis().conversion
    assert "P0" not in inline.symbols


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_all_mistakes_at_once_with_their_places(tmp_path):
    text = edited(("T: 260 °C", "T: 260"), ("gamma: 200 mJ/m^2", "gama: 200 mJ/m^2"), ("n: 2", "n: two"))
    places = {re.match(r".*params\.yaml:(\d+):(\d+): (\w+): ", line).groups() for line in mistakes(tmp_path, text)}
    assert places == {("2", "1", "T"), ("4", "1", "gama"), ("1", "1", "gamma"), ("9", "1", "n")}
    assert any("did you mean `gamma`?" in line for line in mistakes(tmp_path, text))


@pytest.mark.parametrize(
    ("changes", "key", "hint"),
    [
        ([("k1: 0.24 1/min\n", "")], "conversion", "needs k1"),
        ([("k1: 0.24 1/min\nP0: 27 mmol/L\n", "")], "conversion", "needs k1 and P0"),
        ([("B: 2 Å\n", "")], "adsorption", "needs B"),
        ([("superfocusing", "power")], "B", "not used with adsorption: power"),
        ([("k1:", "k2: 1 L/mol/s\nk1:")], "k2", "not used with conversion: first_order"),
        ([("D: 5e-6 cm^2/s", "D: null")], "D", "nucleation: false"),
        ([("D: 5e-6 cm^2/s\n", "")], "D", "missing"),
        ([("nucleation: true", "nucleation: false")], "crystals", "without nucleation"),
        ([*GROWTH_ONLY, ("n: 2", "n: 2\nprefactor: 2")], "prefactor", "not used"),
        ([("sigma: 0.1 nm", "sigma: 0.4 nm")], "crystals.0.sigma", "quarter"),
        ([("T: 260 °C", "T: [[0 s, 230 °C], [0 s, 260 °C]]")], "T", "increase"),
        ([("T: 260 °C", "T: [[0 s, 230 °C]]")], "T", "two points"),
        ([("T: 260 °C", "T: [[0 s, 230 °C], [1 s, 260]]")], "T", "point 2: a unit is missing"),
        ([("T: 260 °C", "T: [[0 s, 230 °C], 5]")], "T", "point 2"),
        ([("T: 260 °C", "T: -300 °C")], "T", "absolute zero"),
        ([("n: 2", "n: 2\nsnapshots: [1 h]")], "snapshots", "after the end"),
        ([("n: 2", "n: 2\nsnapshots: [5 s, 5 s]")], "snapshots", "increase"),
        ([("n: 2", "n: 2\nsnapshots: [5 s, 5]")], "snapshots.1", "unit"),
        ([("n: 2", "n: 2\nscan: {n: []}")], "scan.n", "at least 1"),
        ([("n: 2", "n: 2\nscan: {m: [1]}")], "scan.m", "known here: n"),
        ([("n: 2", "n: 2\nscan: {n: []}")], "scan.n", "must have at least 1, but has 0"),
        ([("n: 2", "n: 2\nscan: {n: 3}")], "scan.n", "must be a list in brackets, such as [3]"),
        ([("n: 2", "n: 200")], "n", "20"),
        ([("desorption: true\n", "")], "desorption", "whether monomers leave"),
        ([("P0: 27 mmol/L", "P0: 27 mm")], "P0", "not a unit of this quantity"),
        ([("P0: 27 mmol/L", "P0: 0 mmol/L")], "P0", "positive"),
        ([("n: 2", "n: 2\ninjections: [{time: 1 h, P0: 1 M}]")], "injections", "after the end"),
        ([("n: 2", "n: 2\ninjections: [{time: 9 s, P0: 1 M}, {time: 8 s, P0: 1 M}]")], "injections", "increase"),
        ([("n: 2", "n: 2\ninjections: [{time: 9 s, P0: 0 M}]")], "injections", "adds nothing"),
        ([("n: 2", "n: 2\ninjections: [{time: 9 s, P0: 1 M, partner: 1 M}]")], "injections", "second_order only"),
        ([*TABLE, ("n: 2", "n: 2\ninjections: [{time: 9 s, P0: 1 M}]")], "injections", "put them into the table"),
        ([*TABLE, ("0.05 mol", "0 mol")], "generation", "zero"),
        ([*TABLE, ("[[0 s, 0.05 mol/m^3/s], [4 min, 0.05 mol/m^3/s]]", "rates.csv")], "generation", "rates.csv: "),
        ([("v0: 0.0559 nm^3", "v0: 1e-300 m^3")], "v0", "1e-300 m^3 is no possible v0; give 1e-31 to 1e-24 m^3"),
        ([("gamma: 200 mJ/m^2", "gamma: 1e120 J/m^2")], "gamma", "no possible gamma"),
        ([("gamma: 200 mJ/m^2", "gamma: 90 J/m^2"), ("0.0559 nm^3", "5 nm^3")], "gamma", "capillary length"),
        ([("T: 260 °C", "T: [[0 s, 230 °C], [9 s, 1e5 K]]")], "T", "no possible T"),
        ([("k1: 0.24 1/min", "k1: 1e40 1/s")], "k1", "no possible k1"),
        ([("n: 2", "n: 2\ninjections: [{time: 9 s, P0: 1e-99 M}]")], "injections", "no possible injections, P0"),
        ([*GROWTH_ONLY, ("c: 25 µmol/L", "c: 1e99 M")], "crystals", "no possible crystals, c"),
        ([*TABLE, ("0.05 mol/m^3/s], [4", "1e99 mol/m^3/s], [4")], "generation", "no possible generation"),
        ([("adsorption: superfocusing", "adsorption: linear")], "adsorption", "linear_free_energy"),
    ],
)
def test_contradictions_say_how_to_mend_them(tmp_path, changes, key, hint):
    if key == "crystals.0.sigma":
        changes = [*GROWTH_ONLY, *changes]
    found = mistakes(tmp_path, edited(*changes))
    assert any(re.search(rf"params\.yaml:\d+:\d+: {re.escape(key)}: .*{re.escape(hint)}", line) for line in found), (
        found
    )


def test_keys_of_another_choice_are_each_refused_at_their_place(tmp_path):
    text = edited(("adsorption: superfocusing", "adsorption: linear_free_energy\nscan: {n: [0, 2]}"))
    found = mistakes(tmp_path, text)
    keys = [re.match(r".*params\.yaml:(\d+):1: (\w+): ", line).groups() for line in found]
    assert keys == [("7", "adsorption"), ("9", "A"), ("10", "n"), ("11", "r_c0"), ("12", "B"), ("8", "scan")]
    assert "k_inf and alpha" in found[0]
    assert all("not used with adsorption: linear_free_energy" in line for line in found[1:])


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("t_s,rate_mol_m3_s\n0,0.05\n", "holds 1 times"),
        ("t_s,rate_mol_m3_s\n0,0.05\n10,\n", "rates.csv:3:4: rate_mol_m3_s: the cell is empty"),
        ("t_s,rate_mol_m3_s\n0,0.05\n0,0.05\n", "increase"),
        ("t_s,rate_mol_m3_s\n0,0.05\n9,-1\n", "not negative"),
        ("t_s,t\n0,0.05\n9,1\n", "unknown column 't'"),
        ("t_s\n0\n9\n", "rate_mol_m3_s is missing"),
    ],
)
def test_a_faulty_table_of_rates_is_an_error_of_its_key(tmp_path, content, hint):
    (tmp_path / "rates.csv").write_text(content)
    (found,) = mistakes(tmp_path, re.sub(r"generation: .*", "generation: rates.csv", edited(*TABLE)))
    assert "params.yaml:15:1: generation: " in found
    assert hint in found


@pytest.mark.parametrize("text", ["", "[1, 2]", "just text"])
def test_yaml_that_is_no_parameter_file(tmp_path, text):
    assert "params.yaml:1:1: a parameter file holds keys" in mistakes(tmp_path, text)[0]


def test_a_parameter_file_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="parameter file not found"):
        runfile.load_model(tmp_path / "none.yaml")


# --- settings over the file ------------------------------------------------------------------------------------------


def test_settings_override_the_file_and_bare_numbers_take_its_units(tmp_path):
    settings = ["n=3.5", "gamma=180", "A = 0.05 m/s", "k1=0.3", "T=250", "end=10 min", "desorption=false"]
    loaded = load(tmp_path, GOOD, *settings)
    model = loaded.config
    symbols = ("n", "gamma", "A", "k1", "T")
    assert [model.value(s) for s in symbols] == pytest.approx([3.5, 0.18, 0.05, 0.005, 523.15], rel=1e-14)
    assert (model.end_s, model.desorption) == (600, False)
    assert model.snapshots_s == (3.16, 9.47, 28.34, 49.03, 84.83, 146.78, 253.96, 439.4, 600)
    assert loaded.text == GOOD


@pytest.mark.parametrize(("setting", "key", "value"), [("end=100", "end", 100.0), ("T=500", "T", 500.0)])
def test_a_bare_number_takes_the_unit_of_the_default_where_the_file_is_silent(tmp_path, setting, key, value):
    assert getattr(load(tmp_path, edited(("T: 260 °C\n", "")), setting).config, key) == value


def test_a_bare_number_without_a_unit_to_take_is_refused(tmp_path):
    program = edited(("T: 260 °C", "T: [[0 s, 230 °C], [60 s, 260 °C]]"))
    assert mistakes(tmp_path, program, "T=250") == ("--set T=250: a unit is missing; write for example '250 K'",)
    settings = ["conversion=second_order", "k1=null", "beta=2", "k2=0.14"]
    assert mistakes(tmp_path, GOOD, *settings) == (
        "--set k2=0.14: a unit is missing; write for example '0.14 m^3/mol/s'",
    )
    settings[-1] = "k2=0.14 L/mol/s"
    assert load(tmp_path, GOOD, *settings).config.value("k2") == pytest.approx(1.4e-4)


def test_lists_are_set_in_yaml_flow_syntax(tmp_path):
    settings = ["T=[[0 s, 230 °C], [60 s, 260 °C]]", "scan={n: [0, 4]}", "snapshots=[1 s, 2 min]"]
    model = load(tmp_path, GOOD, *settings).config
    assert ((0, pytest.approx(503.15)), (60, pytest.approx(533.15))) == model.T
    assert (model.scan_n, model.snapshots_s) == ((0, 4), (1, 120))


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("n=abc", "valid number"),
        ("nn=3", "unknown key; did you mean `n`?"),
        ("gamma=5 kg", "give it in J/m^2"),
        ("n", "write name=value"),
        ("=3", "write name=value"),
        ("k1=-1", "must be positive"),
        ("A=1/22", "unknown unit '/22'"),
        ("title=a: b: c", "not valid YAML"),
        ("n=[1, 2]", "valid number"),
        ("snapshots=[1, 2 s]", "0: a unit is missing"),
        ("D=null", "nucleation rate"),
        ("T=!!python/none x", "not valid YAML"),
        ("n=1e999", "finite"),
        ("n=true", "valid number"),
        ("v0=1e-30", "no possible v0"),
        ("A=1e99", "no possible A"),
        ("M0=1e-99", "no possible M0"),
        ("D=1e99", "no possible D"),
    ],
)
def test_a_faulty_setting_is_named_with_what_is_wrong(tmp_path, setting, hint):
    (found,) = mistakes(tmp_path, GOOD, setting)
    assert found.startswith(f"--set {setting}: ")
    assert hint in found


def test_a_parameter_set_twice_is_refused(tmp_path):
    assert mistakes(tmp_path, GOOD, "n=2", "n=3") == ("--set n=3: n is set twice; leave one",)


def test_errors_found_later_name_the_setting_or_the_place(tmp_path):
    loaded = load(tmp_path, GOOD, "n=3")
    assert loaded.error("n", "too much").messages == ("--set n=3: too much",)
    assert loaded.error("gamma", "too much").messages[0].endswith("params.yaml:4:1: gamma: too much")


@given(st.floats(min_value=1e-6, max_value=1.0), st.sampled_from(["A", "gamma", "M0", "D", "k1", "P0"]))
def test_a_bare_setting_means_what_the_file_would_say(value, symbol):
    with_unit = {"A": "m/s", "gamma": "J/m^2", "M0": "mol/m^3", "D": "m^2/s", "k1": "1/s", "P0": "mol/m^3"}[symbol]
    bare, written = (
        runfile.load_model(PUBLISHED, [f"{symbol}={value!r}{unit}"]).config.value(symbol)
        for unit in ("", f" {with_unit}")
    )
    assert bare == written == value


# --- the schema ------------------------------------------------------------------------------------------------------


def test_the_schema_describes_every_field():
    schema = json.loads(json.dumps(runfile.schema(KineticModel)))
    assert set(UNITS) < set(schema["properties"])
    for section in (KineticModel, Injection, CrystalSet, Scan):
        assert all(field.description for field in section.model_fields.values()), section
    used = {name for options in (ADSORPTION, CONVERSION) for names in options.values() for name in names}
    assert used < set(KineticModel.model_fields)
