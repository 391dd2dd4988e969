"""The section `model` of the run file: what becomes of it, and what is said of mistakes."""

import re
from pathlib import Path

import pytest

from saxs_pipeline import runfile
from saxs_pipeline.science.contrast import scattering_length_density
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.stages.quantify import contrast_1_A2
from saxs_pipeline.types import BadInput, Uncertain
from tests.test_runfile import GOOD

PLAIN = "model: {q_min: 0.15 1/nm, q_max: 5 1/nm}"
SAMPLE = "sample: {contrast: 35.2e-6 1/Å^2}"
PAIR = """\
model:
  q_min: 0.15 1/nm
  q_max: 5 1/nm
  populations:
    - {name: crystals, radius: [1.8 nm, 5 nm], sigma: [0.05 nm, 1 nm]}
    - {name: agglomerates, radius: [0.8 nm, 1.8 nm], contrast: 20e-6 1/Å^2}
"""
PARTICLE = "particle: {formula: CsPbBr3, density: 4.83 g/cm^3, expansion: 3e-5 1/K, density_at: 20 °C}"
EXPANDING = PAIR.replace("sigma: [0.05 nm, 1 nm]", PARTICLE)
SOLVENT = "sample: {solvent: {formula: C6H14, density: 0.655 g/cm^3}}"
HOT = SOLVENT.replace("}}", "}, temperature: 160 °C}")


@pytest.fixture
def load(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/f_1.edf").write_bytes(b"x")
    (tmp_path / "scalers.h5").write_bytes(b"x")

    def loaded(model, sample=SAMPLE):
        path = tmp_path / "run.yaml"
        path.write_text(GOOD.replace(PLAIN, model).replace(SAMPLE, sample), encoding="utf-8")
        return runfile.load(path).config

    return loaded


def with_keys(text):
    return PLAIN.replace("}", f", {text}}}")


def test_a_model_without_more_is_as_ever(load):
    spec = load(PLAIN).model.spec([7.0])
    (one,) = spec.populations
    assert (one.amplitude, one.radius_nm, one.sigma_nm, one.name) == (7.0, (0.5, 5.0), (0.02, 0.6), "")
    assert (spec.distribution, spec.power_law, spec.constant, spec.volume_fraction) == ("gaussian", None, None, None)


def test_every_key_arrives_in_internal_units(load):
    keys = (
        "distribution: schulz, power_law: 4, constant: 1e-3 1/cm, structure_factor: {volume_fraction: [0.01, 0.3], "
        "shell: 6 Å}, resolution: {sigma_q: 0.002 1/Å}, fixed: {radius: 20 Å}, tied: {sigma: 0.06 * radius}"
    )
    spec = load(with_keys(keys)).model.spec([1.0], 0.02)
    assert spec.distribution == "schulz" and spec.power_law == (4, 4) and spec.constant == pytest.approx(1e-4)
    assert spec.volume_fraction == (0.01, 0.3) and spec.shell_nm == pytest.approx(0.6)
    assert spec.sigma_q_1_nm == 0.02 and spec.tied == (("sigma", "0.06 * radius"),)
    assert dict(spec.fixed) == {"radius": pytest.approx(2.0)}
    assert load(with_keys("power_law: [3, 4.5]")).model.spec([1.0]).power_law == (3, 4.5)


def test_each_population_sees_its_own_sample(load):
    config = load(PAIR)
    first, second = config.model.samples(config.sample)
    assert first.contrast == (pytest.approx(35.2e-6), 0) and second.contrast == (pytest.approx(20e-6), 0)
    solvent = "sample: {solvent: {formula: C6H14, density: 0.655 g/cm^3}, cation_concentration: 5 mmol/L}"
    particle = "particle: {formula: CsPbBr3, density: 4.83 g/cm^3}, lattice_parameter: 0.587 nm, cations_per_cell: 1"
    both = PAIR.replace("sigma: [0.05 nm, 1 nm]", particle).replace("contrast: 20e-6 1/Å^2", particle)
    config = load(both, solvent)
    first, second = config.model.samples(config.sample)
    assert first.solvent.formula == "C6H14" and first.particle.formula == "CsPbBr3" and first.contrast is None
    assert second.cation_concentration == Uncertain(5.0)


def test_particles_of_populations_expand_to_the_temperature_of_the_sample(load):
    """ρ(T) = ρ₀/(1 + β(T − T₀)): 3e-5 1/K over 140 K take 0.418 % of both densities."""
    config = load(EXPANDING, HOT)
    hot, given = config.model.samples(config.sample)
    assert given.contrast == (pytest.approx(20e-6), 0) and given.particle is None
    cold = hot.model_copy(update={"particle": hot.particle.model_copy(update={"expansion": None, "density_at": None})})
    contrasts = [contrast_1_A2(one, 37.5).value for one in (hot, cold)]
    of_solvent = scattering_length_density("C6H14", 0.655, 37.5)
    assert contrasts[0] + of_solvent == pytest.approx((contrasts[1] + of_solvent) / (1 + 3e-5 * 140), rel=1e-9)


def test_ties_that_hold_in_a_part_of_the_ranges_are_taken(load):
    """σ_r from 0 to its largest; a tie may have no value for some of the radii."""
    for text in ("0.06", "0.1*sqrt(radius - 0.7)", "0.05*log(radius) + 0.1", "0.5 - 0.1*radius", "0.6"):
        assert load(with_keys(f"tied: {{sigma: '{text}'}}")).model.tied == {"sigma": text}
    assert load(with_keys("fixed: {radius: 5 nm, sigma: 0.6 nm}")).model.fixed == {"radius": 5, "sigma": 0.6}
    assert load(PAIR + "  tied: {crystals_sigma: 2*agglomerates_sigma}\n").model.tied


@pytest.mark.parametrize(
    ("model", "sample", "key", "hint"),
    [
        (with_keys("distribution: weibull"), SAMPLE, "model.distribution", "gaussian"),
        (with_keys("power_law: 7"), SAMPLE, "model.power_law", "6"),
        (with_keys("power_law: [4, 3]"), SAMPLE, "model.power_law", "smaller"),
        (with_keys("resolution: {beam: 0.4 nm}"), SAMPLE, "model.resolution.beam", "1 µm to 10 mm"),
        (with_keys("resolution: {beam: 0.4 m}"), SAMPLE, "model.resolution.beam", "1 µm to 10 mm"),
        (with_keys("fixed: {c_nc: 2 µmol/L}"), SAMPLE, "model.fixed.c_nc", "choose from radius, sigma"),
        (PAIR + "  fixed: {crystals_c_nc: 2 µmol/L}\n", SAMPLE, "model.fixed.crystals_c_nc", "from crystals_radius, "),
        (with_keys("tied: {sigma: 2 * sigma}"), SAMPLE, "model.tied.sigma", "by itself; use radius"),
        (PAIR + "  tied: {crystals_sigma: agglomerates_sigma, agglomerates_sigma: crystals_radius}\n", SAMPLE,
         "model.tied.crystals_sigma", "is tied itself; use crystals_radius, agglomerates_radius"),
        (with_keys("structure_factor: {}"), SAMPLE, "volume_fraction", "missing"),
        (with_keys("structure_factor: {volume_fraction: 0.9}"), SAMPLE, "volume_fraction", "0.6"),
        (with_keys("resolution: {}"), SAMPLE, "model.resolution", "beam"),
        (with_keys("fixed: {width: 1 nm}"), SAMPLE, "model.fixed", "choose from radius, sigma"),
        (with_keys("tied: {sigma: 0.1 * r}"), SAMPLE, "model.tied", "use radius, sigma"),
        (with_keys("tied: {sigma: 'open(1)'}"), SAMPLE, "model.tied", "not allowed"),
        (with_keys("tied: {sigma: radius}, fixed: {sigma: 1 nm}"), SAMPLE, "model.tied", "keep one"),
        (PAIR.replace("[0.8 nm, 1.8 nm]", "[0.8 nm, 2 nm]"), SAMPLE, "model.populations", "overlap"),
        (PAIR.replace("name: agglomerates", "name: crystals"), SAMPLE, "model.populations", "different names"),
        (PAIR.replace("name: agglomerates", "name: crystals_2"), SAMPLE, "model.populations", "crystals_…; rename one"),
        (PAIR.replace("name: agglomerates", "name: sigma"), SAMPLE, "populations", "sigma_r_nm is a column already"),
        (PAIR.replace("name: agglomerates", "name: 2nd"), SAMPLE, "populations", "pattern"),
        (PAIR + "  radius: [1 nm, 2 nm]\n", SAMPLE, "model.radius", "each of the populations"),
        (PAIR.replace("1 nm]}", "1 nm], contrast: 1e-5 1/Å^2, particle: {formula: C, density: 1 g/cm^3}}"), SAMPLE,
         "contrast", "not both"),
        (PAIR, "sample: {solvent: {formula: C6H14, density: 0.655 g/cm^3}}", "model.populations", "crystals: give"),
        (PAIR, SAMPLE.replace("}", ", cation_concentration: 5 mmol/L}"), "model.populations", "a yield needs"),
        (PLAIN, "sample: {solvent: {formula: C6H14, density: 0.655 g/cm^3}}", "sample.contrast", "give `contrast`"),
        (with_keys("fixed: {radius: 30 nm}"), SAMPLE, "model.fixed.radius", "0.5 to 5 nm; widen"),
        (with_keys("fixed: {sigma: 2 nm}"), SAMPLE, "model.fixed.sigma", "0 to 0.6 nm; widen"),
        (PAIR + "  fixed: {agglomerates_radius: 2 nm}\n", SAMPLE, "model.fixed.agglomerates_radius", "0.8 to 1.8 nm"),
        (with_keys("tied: {sigma: -0.1*radius}"), SAMPLE, "model.tied.sigma", "nowhere in the"),
        (with_keys("tied: {sigma: radius/0}"), SAMPLE, "model.tied.sigma", "nowhere in the"),
        (with_keys("tied: {radius: '30'}"), SAMPLE, "model.tied.radius", "0.5 to 5 nm; correct"),
        (with_keys("fixed: {radius: 1 nm}, tied: {sigma: radius - 2}"), SAMPLE, "model.tied.sigma", "nowhere in the"),
        (PAIR, "", "model.populations.1.contrast", "add `sample: {}` at least"),
        (EXPANDING, SOLVENT, "model.populations.0.particle", "crystals: its expansion needs `sample.temperature`"),
        (EXPANDING.replace("3e-5", "-9e-3"), HOT, "model.populations.0.particle", "leaves no volume"),
        (PAIR, SAMPLE.replace("}", ", temperature: 160 °C}"), "sample.temperature", "no material expands"),
    ],
)  # fmt: skip
def test_mistakes_have_their_place_and_how_to_mend_them(load, model, sample, key, hint):
    with pytest.raises(BadInput) as caught:
        load(model, sample)
    text = str(caught.value)
    assert hint in text, text
    assert key in text and "run.yaml:" in text, text
    assert "Traceback" not in text and len(caught.value.messages) <= 3


@pytest.mark.parametrize(
    ("keys", "key", "allowed"),
    [
        *((f"power_law: {given}", "model.power_law", "a number from 1 to 6, or a range within these such as [3, 4.5]")
          for given in ("four", "0", "true", ".nan", "[3]", "[3, x]", "[0, 4]", "[3, 4, 5]", "{}")),
        *((f"structure_factor: {{volume_fraction: {given}}}", "model.structure_factor.volume_fraction",
           "a number from 0 to 0.6, or a range within these such as [0, 0.3]")
          for given in ("0.9", "-0.1", "[0, 0.9]", "much")),
        ("power_law: [5, 3]", "model.power_law", "the first value must be smaller than the second, got [5, 3]"),
    ],
)  # fmt: skip
def test_what_may_be_a_number_or_a_range_is_said_in_one_line(load, keys, key, allowed):
    with pytest.raises(BadInput) as caught:
        load(with_keys(keys))
    (message,) = caught.value.messages
    assert f": {key}: " in message and allowed in message, message


def test_a_volume_fraction_may_be_searched_from_zero_on(load):
    config = load(with_keys("structure_factor: {volume_fraction: [0, 0.3]}"))
    assert config.model.spec([1.0]).volume_fraction == (0.0, 0.3)


def test_the_example_of_the_readme_is_a_model(load):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(model:\n.*?)```", text, re.DOTALL)[1].replace("0.2 1/nm", "0.15 1/nm")
    solvent = "{formula: C6H14, density: 0.655 g/cm^3}"
    config = load(example, f"sample: {{solvent: {solvent}}}")
    assert [one.name for one in config.model.populations] == ["crystals", "agglomerates"]
    spec = config.model.spec([1.0, 1.0])
    assert (spec.distribution, spec.power_law) == ("schulz", (4, 4))
    assert CurveModel.of(spec).free == (0, 1, 2)
