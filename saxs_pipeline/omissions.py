"""What a run file leaves open: said once, by `check` and with the results."""

from __future__ import annotations

from saxs_pipeline.data_config import FrameFiles
from saxs_pipeline.model_config import PopulationChoice
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.sample_config import Sample
from saxs_pipeline.types import Uncertain

Stated = dict[str, Uncertain | None]

_OF_INTENSITY = ("thickness", "scale", "transmission")
_OF_STANDARD = ("transmission", "thickness", "cross_section", "temperature")
_OF_MATERIAL = ("density", "lattice_parameter", "expansion")
_OF_POPULATION = ("contrast", "lattice_parameter")
_OF_SAMPLE = (*_OF_POPULATION, "cation_concentration", "temperature")


def standard_files(run: RunFile) -> tuple[tuple[FrameFiles, str], ...]:
    """The frames of the standard and of what is taken off it, with their places in the run file; () without one."""
    water, carbon = run.config.intensity.water, run.config.intensity.glassy_carbon
    if water is not None:
        return (water, "intensity.water"), (water.empty, "intensity.water.empty")
    if carbon is not None:
        return (carbon, "intensity.glassy_carbon"), (carbon.background, "intensity.glassy_carbon.background")
    return ()


def warnings(run: RunFile) -> tuple[str, ...]:
    """What the run file leaves open, said once."""
    config, found = run.config, _without_uncertainty(run)
    if config.model is not None:
        more = "" if config.sample is None else ", c by 0.6 % and the yield by 0.3 %"
        found.append(
            f"q has no stated uncertainty: 0.1 % of distance or energy would move all r and σ_r by 0.1 %{more}"
        )
    if config.corrections is not None and config.corrections.dark is None and config.corrections.read_noise > 0:
        found.append("no dark frames (corrections.dark): only the pedestal is subtracted")
    if config.data.frames is not None and not config.intensity.absolute:
        found.append("no absolute scale (intensity.water, glassy_carbon or scale): c and yield are not reported")
    if config.model is not None and config.sample is None:
        found.append("no sample section: c and yield are not reported")
    if config.integration is not None and config.integration.splitting != "none":
        found.append("pixel splitting ties neighbouring bins together: the errors of the fits are too small")
    return tuple(found)


def _without_uncertainty(run: RunFile) -> list[str]:
    """One line that names all that is given without an uncertainty; none where there is nothing of the kind."""
    config, common = run.config, _of_intensity(run)
    own: dict[str, Stated] = {}
    absolute = config.intensity.absolute or config.data.frames is None
    if config.sample is not None and config.model is not None and absolute:
        common |= _of_sample(config.sample)
        own = {one.name: _of_population(one) for one in config.model.populations or ()}
    groups = [", ".join(_exact(common))] if _exact(common) else []
    names: dict[tuple[str, ...], list[str]] = {}
    for name, stated in own.items():
        names.setdefault(_exact(stated), []).append(name)
    groups += [f"{', '.join(keys)} of {' and '.join(of)}" for keys, of in names.items() if keys]
    if not groups:
        return []
    return [f"no stated uncertainty, left out of the systematic ones: {'; '.join(groups)}"]


def _exact(stated: Stated) -> tuple[str, ...]:
    """Keys of what is given without an uncertainty."""
    return tuple(key for key, value in stated.items() if value is not None and value.error == 0)


def _of_intensity(run: RunFile) -> Stated:
    stated: Stated = {f"intensity.{name}": getattr(run.config.intensity, name) for name in _OF_INTENSITY}
    for files, key in standard_files(run):
        stated |= {f"{key}.{name}": getattr(files, name, None) for name in _OF_STANDARD}
    return stated


def _of_sample(sample: Sample) -> Stated:
    stated = {f"sample.{key}": getattr(sample, key) for key in _OF_SAMPLE}
    for name, material in sample.materials.items():
        stated |= {f"sample.{name}.{key}": getattr(material, key) for key in _OF_MATERIAL}
    return stated


def _of_population(one: PopulationChoice) -> Stated:
    stated = {key: getattr(one, key) for key in _OF_POPULATION}
    if one.particle is not None:
        stated |= {f"particle.{key}": getattr(one.particle, key) for key in _OF_MATERIAL}
    return stated
