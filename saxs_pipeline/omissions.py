"""What a run file leaves open: said once, by `check` and with the results."""

from __future__ import annotations

from saxs_pipeline.data_config import FrameFiles
from saxs_pipeline.runfile import RunFile

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
    config, found = run.config, []
    intensity, sample = config.intensity, config.sample
    stated = {
        "intensity.thickness": intensity.thickness,
        "intensity.scale": intensity.scale,
        "intensity.transmission": intensity.transmission,
    }
    for files, key in standard_files(run):
        names = ("transmission", "thickness", "cross_section", "temperature")
        stated |= {f"{key}.{name}": getattr(files, name, None) for name in names}
    if sample is not None and config.model is not None and (intensity.absolute or config.data.frames is None):
        stated |= {f"sample.{key}": getattr(sample, key) for key in _OF_SAMPLE}
        for name, material in sample.materials.items():
            stated |= {f"sample.{name}.{key}": getattr(material, key) for key in _OF_MATERIAL}
        for one in config.model.populations or ():
            stated |= {f"model.populations: {one.name}: {key}": getattr(one, key) for key in _OF_POPULATION}
            if one.particle is not None:
                name = f"model.populations: {one.name}: particle"
                stated |= {f"{name}.{key}": getattr(one.particle, key) for key in _OF_MATERIAL}
    for key, value in stated.items():
        if value is not None and value.error == 0:
            found.append(f"{key} has no stated uncertainty; the systematic uncertainties leave it out")
    if config.corrections is not None and config.corrections.dark is None and config.corrections.read_noise > 0:
        found.append("no dark frames (corrections.dark): only the pedestal is subtracted")
    if config.data.frames is not None and not intensity.absolute:
        found.append("no absolute scale (intensity.water, glassy_carbon or scale): c and yield are not reported")
    if config.model is not None and sample is None:
        found.append("no sample section: c and yield are not reported")
    if config.integration is not None and config.integration.splitting != "none":
        found.append("pixel splitting ties neighbouring bins together: the errors of the fits are too small")
    return tuple(found)
