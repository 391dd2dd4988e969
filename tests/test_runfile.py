"""The run file: positions of all mistakes at once, paths, and what the digest depends on."""

import json
import re
import shutil

import pytest

from saxs_pipeline import runfile
from saxs_pipeline.types import BadInput

GOOD = """\
title: CdSe
data:
  frames: raw/*.edf
  scalers: scalers.h5
  time: {zero: 9.4 s}
geometry:
  distance: 1 m
  center: [240.1, 238.7]
  pixel_size: 354.1667 um
  energy: 18 keV
corrections: {gain: 1.6, read_noise: 3, polarization: 0.97}
integration: {bins: 200, q_min: 0.1 1/nm, q_max: 0.5 1/angstrom}
intensity: {monitor: I1, thickness: 4 mm ± 0.5 %}
background: {frames: "0:80"}
sample: {contrast: 35.2e-6 1/Å^2}
model: {q_min: 0.15 1/nm, q_max: 5 1/nm}
output: {folder: out}
"""
WATER = "water: {frames: scalers.h5, empty: scalers.h5, thickness: 2 mm, window: [1 1/nm, 4 1/nm]"
CLIP = "sigma_clip: {threshold: 5, iterations: 5}"
SPLIT = "integration: {splitting: bbox, "
CARBON = "glassy_carbon: {frames: scalers.h5, background: scalers.h5, thickness: 1.055 mm}"


CDSE = "{formula: CdSe, lattice_parameter: 0.608 nm, formula_units: 4}"
C18 = "{formula: C18H36, density: 0.789 g/cm^3, expansion: 1.3e-3 1/K, density_at: 20 °C}"
HOT = ", temperature: 260 °C"


def materials(particle, solvent, more=""):
    """The change from a given contrast to one from compositions."""
    return "{contrast: 35.2e-6 1/Å^2}", f"{{particle: {particle}, solvent: {solvent}{more}}}"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "raw").mkdir()
    for name in ("f_2.edf", "f_10.edf", "f_1.edf"):
        (tmp_path / "raw" / name).write_bytes(b"x")
    (tmp_path / "scalers.h5").write_bytes(b"x")
    return tmp_path


def load(folder, text):
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return runfile.load(path)


def mistakes(folder, text):
    with pytest.raises(BadInput) as caught:
        load(folder, text)
    return caught.value.messages


def test_a_good_file_arrives_in_internal_units_and_natural_order(folder):
    config = load(folder, GOOD).config
    assert [p.name for p in config.data.frames] == ["f_1.edf", "f_2.edf", "f_10.edf"]
    assert config.integration.q_max == pytest.approx(5.0)
    assert config.geometry.pixel_size == pytest.approx(354.1667e-6)
    assert config.intensity.thickness == pytest.approx((4.0, 0.02))
    assert config.background.frames == tuple(range(80))
    assert config.output.folder == folder / "out"


def test_standards_in_internal_units(folder):
    """The cross section of water at 20 °C, 1.632e-3 1/mm (Orthaber et al. 2000), within its uncertainty of 1 %."""
    water = load(folder, GOOD.replace("I1, ", f"I1, {WATER}, temperature: 20 °C ± 0.5 °C}}, ")).config.intensity
    assert water.water.temperature == pytest.approx((293.15, 0.5))
    assert water.standard.known.value == pytest.approx(1.632e-3, rel=0.01)
    carbon = load(folder, GOOD.replace("I1, ", f"I1, {CARBON}, ")).config.intensity
    assert carbon.absolute
    assert carbon.standard.window is None


def test_materials_in_internal_units(folder):
    uncertain = C18.replace("0.789 g/cm^3", "0.789 g/cm^3 ± 0.5 %").replace("1.3e-3 1/K", "1.3e-3 ± 1e-4 1/K")
    sample = load(folder, GOOD.replace(*materials(CDSE, uncertain, HOT))).config.sample
    assert sample.temperature == pytest.approx((533.15, 0))
    assert sample.solvent.density == pytest.approx((0.789, 0.003945))
    assert sample.solvent.expansion == pytest.approx((1.3e-3, 1e-4))
    assert sample.solvent.density_at == pytest.approx(293.15)
    assert sample.particle.lattice_parameter == (0.608, 0)


def frames_of(folder, patterns):
    return load(folder, GOOD.replace("frames: raw/*.edf", f"frames: {patterns}")).config.data.frames


def test_files_come_in_the_order_of_the_patterns_each_once(folder):
    (folder / "raw" / "folder.edf").mkdir()
    (folder / "raw" / "scan[1].edf").touch()
    found = frames_of(folder, f"[raw/f_10.edf, '{folder}/raw/f_1*.edf', 'raw/scan[1].edf']")
    assert [p.name for p in found] == ["f_10.edf", "f_1.edf", "scan[1].edf"]


def test_links_that_lead_nowhere_are_passed_over(folder):
    for name, target in (("gone", "nowhere.edf"), ("circle", "f_circle.edf"), ("link", "f_1.edf")):
        (folder / "raw" / f"f_{name}.edf").symlink_to(target)
    assert [p.name for p in frames_of(folder, "[raw/f_*.edf]")][-1] == "f_link.edf"
    assert not {"f_gone.edf", "f_circle.edf"} & {p.name for p in frames_of(folder, "[raw/f_*.edf]")}


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(folder):
    """Else a run over [a/*, b/*] would end without a/ for a moment's fault of the disk."""
    (folder / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="circle"):
        frames_of(folder, "[raw/f_*.edf, circle/*.edf]")


def test_all_mistakes_are_reported_at_once_with_their_places(folder):
    text = (
        GOOD.replace("18 keV", "18 kg")
        .replace("gain: 1.6", "gian: 1.6")
        .replace("raw/*.edf", "nowhere/*.edf")
        .replace("q_max: 0.5 1/angstrom", "q_max: 0.01 1/nm")
        .replace("4 mm ± 0.5 %", "0 mm")
    )
    found = mistakes(folder, text)
    places = {re.match(r".*run\.yaml:(\d+):(\d+): ([\w.]+): ", line).groups() for line in found}
    assert places == {
        ("3", "3", "data.frames"),
        ("10", "3", "geometry.energy"),
        ("11", "15", "corrections.gian"),
        ("11", "1", "corrections.gain"),
        ("12", "43", "integration.q_max"),
        ("13", "26", "intensity.thickness"),
    }
    assert all("\n" not in line for line in found)
    assert any("did you mean `gain`?" in line for line in found)


@pytest.mark.parametrize(
    ("old", "new", "key", "hint"),
    [
        ("distance: 1 m", "distance: -1 m", "geometry.distance", "positive"),
        ("bins: 200", "bins: 0", "integration.bins", "10"),
        ("bins: 200", "bins: many", "integration.bins", "integer"),
        ("monitor: I1, ", "", "intensity", "divided by"),
        ("monitor: I1", "monitor: I0", "intensity.transmission", "transmission"),
        ("monitor: I1", "monitor: I1, monitor_uncertainty: 0.3", "intensity.monitor_uncertainty", "30 % of a reading"),
        ("monitor: I1", "monitor: none, monitor_uncertainty: 0.3 %", "intensity.monitor_uncertainty", "no monitor"),
        ("monitor: I1", "monitor: I0, transmission: 1.2", "intensity.transmission", "between 0 and 1"),
        ("polarization: 0.97", "polarization: 2", "corrections.polarization", "1"),
        (", polarization: 0.97", "", "corrections.polarization", "missing"),
        ('frames: "0:80"', 'frames: "80:0"', "background.frames", "selects no frame"),
        ('frames: "0:80"', "time: [1 s, -1 s]", "background.time", "smaller"),
        ('frames: "0:80"', 'frames: "0:80", time: [0 s, 1 s]', "background", "exactly one"),
        ("q_min: 0.15 1/nm", "q_min: 0.05 1/nm", "model", "within"),
        ("distance: 1 m", "header: false", "geometry", "distance"),
        ("pixel_size: 354.1667 um", "poni: scalers.h5", "geometry.poni", "whole geometry"),
        ("{contrast: 35.2e-6 1/Å^2}", "{particle: {formula: CdSe, density: 5.66 g/cm^3}}", "sample.contrast", "both"),
        (
            "{contrast: 35.2e-6 1/Å^2}",
            "{contrast: 35.2e-6 1/Å^2, lattice_parameter: 0.6 nm}",
            "sample",
            "all or none",
        ),
        (*materials(CDSE, C18.replace("density: 0.789 g/cm^3, ", "")), "sample.solvent.density", "give `density`"),
        (*materials(CDSE, C18[:-1] + ", formula_units: 4}"), "sample.solvent", "lattice_parameter and formula_units"),
        (*materials(CDSE[:-1] + ", density: 5 g/cm^3}", C18), "sample.particle.density", "or both"),
        (*materials(CDSE, C18.replace(", density_at: 20 °C", "")), "sample.solvent", "expansion and density_at"),
        (*materials(CDSE, C18), "sample.temperature", "the expansion of the solvent needs it"),
        (*materials(CDSE, C18, ", temperature: 260"), "sample.temperature", "unit is missing"),
        (*materials(CDSE, CDSE, ", temperature: 260 °C"), "sample.temperature", "no material expands"),
        (*materials(CDSE, C18.replace("1.3e-3", "1.3"), HOT), "sample.solvent.expansion", "no expansion of a liquid"),
        (*materials(CDSE, C18.replace("1.3e-3", "-5e-3"), HOT), "sample.solvent", "leaves no volume"),
        (*materials(CDSE, C18.replace("3 1/K", "3 K"), HOT), "sample.solvent.expansion", "give it in 1/K"),
        ("frames: raw/*.edf", "frames: raw", "data.frames", "folder"),
        ("zero: 9.4 s", "source: law", "data.time.source", "law"),
        ("I1, thickness: 4 mm", "I1, water: {frames: scalers.h5}, thickness: 4 mm", "intensity.water.empty", "missing"),
        ("I1, ", f"I1, {WATER}}}, ", "intensity.water.cross_section", "exactly one"),
        (
            "I1, ",
            f"I1, {WATER}, temperature: 20 °C, cross_section: 1.6e-3 1/mm}}, ",
            "intensity.water.cross_section",
            "exactly one",
        ),
        ("I1, ", f"I1, {WATER}, temperature: 104 °C}}, ", "intensity.water.temperature", "0 to 100 °C"),
        ("I1, ", f"I1, {WATER}, temperature: 20 °C ± 1 %}}, ", "intensity.water.temperature", "give it in K"),
        ("I1, ", f"I1, {CARBON}, scale: 2, ", "intensity.scale", "keep one of glassy_carbon, scale"),
        ("I1, ", f"I1, {CARBON}, {WATER}, temperature: 20 °C}}, ", "intensity.glassy_carbon", "keep one of water"),
        ("I1, thickness: 4 mm ± 0.5 %", f"I1, {CARBON}", "intensity.thickness", "sample's thickness"),
        (
            "0.97}\nintegration: {",
            f"0.97, {CLIP}}}\n{SPLIT}",
            "corrections",
            "`sigma_clip` needs pixels",
        ),
        ("0.97}", "0.97, sigma_clip: {threshold: 2}}", "corrections.sigma_clip.threshold", "3"),
        ("0.97}\nintegration: {", f"0.97}}\nengine: {{device: opencl}}\n{SPLIT}", "engine", "give `splitting: none`"),
        ("0.97}", "0.97}\nengine: {device: cuda}", "engine.device", "'cpu' or 'opencl'"),
    ],
)
def test_impossible_values_say_how_to_mend_them(folder, old, new, key, hint):
    assert old in GOOD
    found = mistakes(folder, GOOD.replace(old, new))
    assert any(f": {key}: " in line and hint in line for line in found), found


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("title: [unclosed\n", ":2:1:"),
        ("title: a\ntitle: b\n", ":2:1:"),
        ("just text", ":1:1:"),
        ("", ":1:1:"),
        ("a: !!python/object/apply:os.getcwd []\n", ""),
    ],
)
def test_yaml_that_is_no_run_file(folder, text, place):
    found = mistakes(folder, text)
    assert place in found[0]
    assert "Traceback" not in "".join(found)


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_run_file_that_cannot_be_read(folder, name):
    with pytest.raises(BadInput, match="run file"):
        runfile.load(folder / name)


def test_binary_instead_of_text(folder):
    (folder / "run.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(BadInput, match="not text"):
        runfile.load(folder / "run.yaml")


def test_digest_depends_on_what_changes_numbers_only(folder):
    reference = runfile.digest(load(folder, GOOD))
    cosmetic = GOOD.replace("title: CdSe", "title: other").replace("folder: out", "folder: elsewhere") + "\n# comment\n"
    assert runfile.digest(load(folder, cosmetic)) == reference
    assert runfile.digest(load(folder, GOOD + "engine: {scheduler: synchronous, chunk: 7}\n")) == reference
    assert runfile.digest(load(folder, GOOD.replace("gain: 1.6", "gain: 1.7"))) != reference
    assert runfile.digest(load(folder, GOOD + "engine: {device: opencl}\n")) != reference
    same_meaning = GOOD.replace("0.5 1/angstrom", "5.0 1/nm")
    assert runfile.digest(load(folder, same_meaning)) == reference


def test_an_error_found_later_has_the_place_of_its_key(folder):
    error = load(folder, GOOD).error("data.scalers", "too short")
    assert error.messages[0].endswith("run.yaml:4:3: data.scalers: too short")


def test_the_schema_is_json_and_knows_every_section():
    schema = json.loads(json.dumps(runfile.schema()))
    assert set(schema["properties"]) == {
        *("title", "data", "geometry", "corrections", "integration", "rebin", "intensity", "background"),
        *("sample", "model", "sizes", "kinetics", "aliquots", "engine", "output"),
    }
    assert "keV" in json.dumps(schema["$defs"]["Geometry"]["properties"]["energy"])


# --- the kinetic model and aliquots ----------------------------------------------------------------------------------

PARAMETERS = """\
title: a synthesis
v0: 5.59e-29 m^3
gamma: 0.2 J/m^2
M0: 1e-7 mol/m^3
D: 5e-10 m^2/s
adsorption: superfocusing
A: 0.045 m/s
n: 2
r_c0: 0.8 nm
B: 0.2 nm
desorption: true
nucleation: true
conversion: first_order
k1: 4e-3 1/s
P0: 27 mol/m^3
"""
ABSOLUTE = GOOD.replace("intensity: {", "intensity: {scale: 2 ± 1 %, ")
KINETICS = ABSOLUTE + "kinetics: {model: params.yaml, fit: [A, gamma, n, k1]}\n"
ALIQUOTS = ABSOLUTE + "aliquots: {file: aliquots.csv}\n"


@pytest.fixture
def with_model(folder):
    (folder / "params.yaml").write_text(PARAMETERS)
    (folder / "aliquots.csv").write_text("t_s,yield,yield_err\n1,0.5,0.1\n")
    return folder


def test_the_parameter_file_is_loaded_with_the_run_file(with_model):
    run = load(with_model, KINETICS)
    assert run.config.kinetics.fit == ("A", "gamma", "n", "k1")
    assert run.kinetics.path == with_model / "params.yaml"
    assert run.kinetics.text == PARAMETERS
    assert run.kinetics.config.value("gamma") == 0.2
    assert load(with_model, ABSOLUTE).kinetics is None


def test_mistakes_of_the_parameter_file_stand_beside_those_of_the_run_file(with_model):
    (with_model / "params.yaml").write_text(PARAMETERS.replace("0.2 J/m^2", "0.2 J").replace("n: 2", "n: two"))
    alone = mistakes(with_model, KINETICS)
    assert [re.search(r"(\w+\.yaml:\d+:\d+): ", line)[1] for line in alone] == ["params.yaml:3:1", "params.yaml:8:1"]
    both = mistakes(with_model, KINETICS.replace("gain: 1.6", "gain: high"))
    assert "run.yaml:11:15: corrections.gain: " in both[0]
    assert both[1:] == alone


def test_the_digest_does_not_depend_on_where_the_folder_is(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    assert runfile.digest(load(folder, GOOD)) == runfile.digest(load(tmp_path / "moved", GOOD))


def test_the_digest_depends_on_the_content_of_the_parameter_file(with_model):
    def digest():
        run = load(with_model, KINETICS)
        return runfile.digest(run)

    reference = digest()
    (with_model / "params.yaml").write_text(PARAMETERS.replace("a synthesis", "another title") + "# comment\n")
    assert digest() == reference
    (with_model / "params.yaml").write_text(PARAMETERS.replace("n: 2", "n: 2.5"))
    assert digest() != reference


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        (KINETICS.replace("sample: {contrast: 35.2e-6 1/Å^2}\n", ""), "kinetics", "section `sample`"),
        (KINETICS.replace("model: {q_min: 0.15 1/nm, q_max: 5 1/nm}\n", ""), "kinetics", "section `model`"),
        (KINETICS.replace("scale: 2 ± 1 %, ", ""), "kinetics", "absolute"),
        (KINETICS.replace("params.yaml", "none.yaml"), "kinetics.model", "not found"),
        (KINETICS.replace("gamma", "gama"), "kinetics.fit", "no parameter"),
        (KINETICS.replace("gamma", "k2"), "kinetics.fit", "params.yaml has no single value of k2"),
        (KINETICS.replace("gamma", "n"), "kinetics.fit", "twice"),
        (ALIQUOTS.replace("model: {q_min: 0.15 1/nm, q_max: 5 1/nm}\n", ""), "aliquots", "section `model`"),
        (ALIQUOTS.replace("scale: 2 ± 1 %, ", ""), "aliquots", "or give a scale"),
        (ALIQUOTS.replace("aliquots.csv", "none.csv"), "aliquots.file", "not found"),
        (ALIQUOTS.replace("csv}", "csv, scale: -1}"), "aliquots.scale", "`fit` or a positive number"),
        (ALIQUOTS.replace("csv}", "csv, scale: free}"), "aliquots.scale", "`fit` or a positive number"),
        (ALIQUOTS.replace("csv}", "csv, path: 1 cm}"), "aliquots", "absorption_coefficient, molar_volume, cation"),
        (ALIQUOTS.replace("csv}", "csv, dilution: 100}"), "aliquots.dilution", "is for absorbances"),
        (ALIQUOTS.replace("csv}", "csv, sizing_curve: [1]}"), "aliquots.sizing_curve", "at least 2"),
    ],
)
def test_the_sections_about_the_reaction_say_what_they_lack(with_model, text, key, hint):
    found = mistakes(with_model, text)
    assert any(f": {key}: " in line and hint in line for line in found), found


def test_aliquots_with_a_given_scale_need_no_absolute_intensity(with_model):
    text = ALIQUOTS.replace("scale: 2 ± 1 %, ", "").replace("csv}", "csv, scale: 0.8}")
    assert load(with_model, text).config.aliquots.scale == 0.8
    assert load(with_model, ALIQUOTS).config.aliquots.scale is None
