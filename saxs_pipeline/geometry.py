"""From the run file's geometry, corrections and integration sections to the specification of the integration."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saxs_pipeline.config import Corrections, Geometry
from saxs_pipeline.data_config import ImageFile
from saxs_pipeline.io.frames import read_image
from saxs_pipeline.model_spec import SigmaQ
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.science import bad_pixels
from saxs_pipeline.science.binning import Limits
from saxs_pipeline.science.corrections import Dark
from saxs_pipeline.science.orientation import stored, turned, turned_shape
from saxs_pipeline.science.outliers import SigmaClip
from saxs_pipeline.science.pixel_mask import DEAD, GAP, USER, Bits
from saxs_pipeline.stages.integrate import IntegrationSpec, build_integrator, pixel_q_nm, pixel_solid_angle
from saxs_pipeline.types import BadInput, Bools, Floats, HeaderGeometry, SourceInfo

HC_KEV_M = 1.2398419843320026e-9
"""Planck constant times speed of light, keV·m (exact SI values)."""


class PlainDetector(NamedTuple):
    """A detector that pyFAI does not know: rows and columns of square pixels, m, without gaps."""

    shape: tuple[int, int]
    pixel_m: float


PLAIN_DETECTORS: Mapping[str, PlainDetector] = {
    "xrd4343ct": PlainDetector((2880, 2880), 150e-6),  # Varex; P21.2
    "varexxrd4343ct": PlainDetector((2880, 2880), 150e-6),
}


def resolve(run: RunFile, info: SourceInfo) -> dict[str, Any]:
    """pyFAI configuration of the geometry for these frames; raises BadInput where it is incomplete or does not fit."""
    return _resolved(run, _as_meant(run, info))


def _as_meant(run: RunFile, info: SourceInfo) -> SourceInfo:
    """What the geometry is about: images of the shape that they have when turned."""
    return replace(info, shape=turned_shape(info.shape, run.config.data.orientation))


def _resolved(run: RunFile, info: SourceInfo) -> dict[str, Any]:
    geometry = run.config.geometry
    assert geometry is not None
    if geometry.header and run.config.data.orientation != "none":
        raise run.error("geometry.header", "the header is about images as stored; with data.orientation give a PONI")
    integrator = _explicit(run, geometry, info) if geometry.poni is None else _load_poni(run, geometry.poni)
    detector = integrator.detector
    if detector.max_shape is None:
        detector.max_shape = detector.shape = info.shape
    if tuple(detector.max_shape) != info.shape:
        raise run.error(
            "geometry",
            f"the detector has {tuple(detector.max_shape)} pixels, the frames have {info.shape}; "
            "use the geometry of this binning",
        )
    if not integrator.wavelength:
        raise run.error("geometry", "the wavelength is missing; add it to the PONI file or give geometry.energy")
    return dict(integrator.get_config())


def energy_keV(geometry: Mapping[str, Any]) -> float:
    """X-ray energy of a pyFAI geometry configuration."""
    return HC_KEV_M / float(geometry["wavelength"])


def stated_energy_keV(run: RunFile) -> float | None:
    """X-ray energy that the run file or its PONI file states; None where only the frames' header may have it."""
    geometry = run.config.geometry
    if geometry is None or geometry.poni is None:
        return None if geometry is None else geometry.energy
    if not geometry.poni.is_file():
        raise run.error("geometry.poni", f"file {geometry.poni} not found; the energy stands in it")
    wavelength_m = _load_poni(run, geometry.poni).wavelength
    return HC_KEV_M / float(wavelength_m) if wavelength_m else None


def resolution_1_nm(geometry: Mapping[str, Any], beam_m: float, q_nm: Floats, widths_1_nm: Floats) -> SigmaQ:
    """Standard deviation of q, 1/nm, of a beam (full width at half maximum on the detector), a pixel, and a bin.

    q_nm, widths_1_nm (m,): of the bins; where all are equally wide it is one number. dq/dx = 2π/(λL) near the beam; a
    square of width w has the variance w²/12.
    """
    integrator = build_integrator(geometry)
    per_m = 2 * math.pi / (float(geometry["wavelength"]) * 1e9 * float(geometry["dist"]))
    pixel_m = max(float(integrator.pixel1), float(integrator.pixel2))
    beam = per_m * beam_m / math.sqrt(8 * math.log(2))
    sigma = np.sqrt(beam**2 + ((per_m * pixel_m) ** 2 + widths_1_nm**2) / 12)
    if np.ptp(sigma) < 1e-6 * sigma.mean():
        return float(sigma.mean())
    return tuple(zip(q_nm.tolist(), sigma.tolist(), strict=True))


def _load_poni(run: RunFile, path: Path) -> Any:
    import pyFAI

    try:
        if "distance:" not in path.read_text(encoding="utf-8").lower():  # pyFAI takes any text for an empty geometry
            raise ValueError("it names no Distance")
        integrator = pyFAI.load(str(path), type_="pyFAI.integrator.azimuthal.AzimuthalIntegrator")
        if not integrator.dist > 0:
            raise ValueError(f"its distance is {integrator.dist}")
    except Exception as error:  # pyFAI raises whatever its parser trips over
        raise run.error("geometry.poni", f"{path} is not a usable PONI file: {error}".split("\n")[0]) from None
    return integrator


def _explicit(run: RunFile, geometry: Geometry, info: SourceInfo) -> Any:
    """Integrator from explicit values over those of the frames' header."""
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    header = info.geometry if geometry.header else None
    if geometry.header and header is None:
        why = "; ".join(text for text in info.warnings if "geometry" in text)
        said = f" that can be used ({why})" if why else ""
        raise run.error(
            "geometry.header", f"no geometry in the header of {info.paths[0].name}{said}; give it here or a PONI"
        )
    detector = _detector(run, geometry, header, info)
    if geometry.center is not None:
        poni1, poni2 = geometry.center[1] * detector.pixel1, geometry.center[0] * detector.pixel2
    else:
        assert header is not None  # the header's centre is in pixels, whatever their size is said to be here
        poni1 = header.poni1_m / header.pixel1_m * detector.pixel1
        poni2 = header.poni2_m / header.pixel2_m * detector.pixel2
    wavelength = HC_KEV_M / geometry.energy if geometry.energy else header.wavelength_m if header else None
    if wavelength is None:
        raise run.error("geometry.energy", "the header has no wavelength; give geometry.energy, e.g. 18 keV")
    distance = geometry.distance if geometry.distance is not None else header.distance_m if header else 0.0
    rotation = geometry.rotation or ((header.rot1, header.rot2, header.rot3) if header else (0.0, 0.0, 0.0))
    return AzimuthalIntegrator(distance, poni1, poni2, *rotation, detector=detector, wavelength=wavelength)


def _detector(run: RunFile, geometry: Geometry, header: HeaderGeometry | None, info: SourceInfo) -> Any:
    """The named detector, or its integer binning, or plain square pixels; always with explicit pixel sizes."""
    from pyFAI.detectors import Detector

    size = (geometry.pixel_size, geometry.pixel_size) if geometry.pixel_size else None
    if geometry.detector is not None:
        named, ratio = _named_detector(run, geometry.detector, info)
        return plain_or_named(named, ratio, size, info.shape)
    if size is None:
        if header is None:
            raise run.error("geometry.pixel_size", "is missing; give it, e.g. 354.1667 um")
        size = (header.pixel1_m, header.pixel2_m)
    return Detector(pixel1=size[0], pixel2=size[1], max_shape=info.shape)


def _named_detector(run: RunFile, name: str, info: SourceInfo) -> tuple[Any, int]:
    try:
        return named_detector(name, info.shape)
    except BadInput as error:
        raise run.error("geometry.detector", str(error)) from None


def named_detector(name: str, shape: tuple[int, int]) -> tuple[Any, int]:
    """The detector of this name, and by how much frames of this shape are binned. Raises BadInput."""
    from pyFAI.detectors import Detector, detector_factory

    try:
        ours = PLAIN_DETECTORS.get(name.lower())
        named = detector_factory(name) if ours is None else Detector(ours.pixel_m, ours.pixel_m, max_shape=ours.shape)
    except Exception:  # pyFAI raises RuntimeError for an unknown name, others for odd ones
        raise BadInput(f"pyFAI knows no detector {name!r}") from None
    native = tuple(named.max_shape or shape)
    ratio = native[0] // shape[0]
    if native != (shape[0] * ratio, shape[1] * ratio):
        raise BadInput(f"{name} has {native} pixels, the frames have {shape}; give the pixel size in place of its name")
    return named, ratio


def plain_or_named(named: Any, ratio: int, size: tuple[float, float] | None, shape: tuple[int, int]) -> Any:
    """The named detector itself, or where it is binned or its pixels are said to be others, a plain one."""
    from pyFAI.detectors import Detector

    if ratio == 1 and size is None:
        return named
    # not the binning setter: it is wrong for unofficial factors and drops the mask (formats.md §1.6)
    size = size or (float(named.pixel1) * ratio, float(named.pixel2) * ratio)
    return Detector(pixel1=size[0], pixel2=size[1], max_shape=shape)


def _detector_mask(run: RunFile, integrator: Any, info: SourceInfo) -> Bools:
    """The detector's own mask."""
    name = run.config.geometry.detector if run.config.geometry is not None else None
    mask, ratio = integrator.detector.mask, 1
    if name is not None:
        named, ratio = _named_detector(run, name, info)
        mask = named.mask
    return binned_mask(mask, ratio, info.shape)


def binned_mask(mask: Any, ratio: int, shape: tuple[int, int]) -> Bools:
    """A detector's mask, None for none, on frames of this shape: a binned pixel is masked where any of its own is."""
    if mask is None:
        return np.zeros(shape, dtype=np.bool_)
    blocks = (np.asarray(mask) != 0).reshape(shape[0], ratio, shape[1], ratio)
    masked: Bools = blocks.any(axis=(1, 3))
    return masked


def specify(run: RunFile, info: SourceInfo, dark: Dark | None = None) -> IntegrationSpec:
    """Everything the integration needs, checked: images fit the frames, and the q range meets unmasked pixels."""
    corrections, orientation, meant = run.config.corrections, run.config.data.orientation, _as_meant(run, info)
    assert corrections is not None
    config = _resolved(run, meant)
    integrator = build_integrator(config)
    flat = _image(run, "corrections.flat", corrections.flat, meant)
    bits = _pixel_mask(run, integrator, flat, meant)
    _check_range(run, integrator, bits != 0)
    bits = stored(bits, orientation)
    values = {"geometry": config, **_values(run, info, integrator)}
    arrays: dict[str, Any] = {"flat": None, "dark": None, "dark_variance": None}
    if flat is not None:
        arrays["flat"] = stored(flat, orientation)
    if dark is not None:
        arrays |= {"dark": dark.level, "dark_variance": dark.variance}
        values["dark_exposure_s"] = dark.exposure_s
        limits = Limits.of(values["dummy"], values["dummy_delta"], values["saturation"])
        bits[limits.reject(dark.level + values["pedestal"])] |= DEAD  # what no dark measured cannot be corrected
    bad = _bad_pixels(corrections, bits, dark, arrays["flat"])
    arrays["mask"] = bits != 0
    key = _key(values | {"detector_file": _detector_file(config)}, arrays)
    pixels = info.n_frames * bits.size
    return IntegrationSpec(key=key, pixels=pixels, bad_pixels=bad, pixel_mask=bits, **values, **arrays)


def _values(run: RunFile, info: SourceInfo, integrator: Any) -> dict[str, Any]:
    """What a specification holds beside geometry and images: as configured, else as the header says."""
    corrections, integration = run.config.corrections, run.config.integration
    assert corrections is not None and integration is not None
    clip, dummy, delta = corrections.sigma_clip, corrections.dummy, corrections.dummy_delta
    if dummy is None:
        dummy, delta = info.dummy, info.delta_dummy
    return {
        "solid_angle_sr": pixel_solid_angle(integrator),
        "bins": integration.bins,
        "q_range_nm": (integration.q_min, integration.q_max),
        "splitting": integration.splitting,
        "polarization": corrections.polarization,
        "solid_angle": corrections.solid_angle,
        "gain": corrections.gain,
        "read_noise": corrections.read_noise,
        "pedestal": pedestal(run, info),
        "dummy": dummy,
        "dummy_delta": delta,
        "saturation": corrections.saturation or info.saturation,
        "orientation": run.config.data.orientation,
        "sensor": _sensor(run, integrator),
        "clip": None if clip is None else SigmaClip(clip.threshold, clip.iterations),
        "device": _device(run),
    }


def _device(run: RunFile) -> str:
    """What the pixels are added up on: "cpu", or the name of the OpenCL device."""
    if run.config.engine.device == "cpu":
        return "cpu"
    from saxs_pipeline.stages import opencl

    try:
        return opencl.device_name()
    except BadInput as error:
        raise run.error("engine.device", str(error)) from None


def _detector_file(config: Mapping[str, Any]) -> str:
    """Digest of the file in which a detector's pixel positions are, "" where it has none."""
    name = config.get("detector_config", {}).get("filename")
    return hashlib.sha256(Path(name).read_bytes()).hexdigest() if name and Path(name).is_file() else ""


def _sensor(run: RunFile, integrator: Any) -> tuple[str, float] | None:
    """Material and thickness (m) of the sensor: as configured, or what pyFAI knows of the named detector."""
    from pyFAI.detectors.sensors import ALL_MATERIALS

    assert run.config.corrections is not None
    given = run.config.corrections.sensor
    if given is None:
        return None
    found = _declared_sensor(run, integrator) if isinstance(given, str) else (given.material, given.thickness)
    if found[0] not in ALL_MATERIALS:
        raise run.error("corrections.sensor", f"pyFAI knows no {found[0]!r}; it knows {', '.join(ALL_MATERIALS)}")
    try:
        ALL_MATERIALS[found[0]].mu(integrator.energy, unit="m")
    except RuntimeError as error:
        raise run.error("corrections.sensor", str(error)) from None
    return found


def _declared_sensor(run: RunFile, integrator: Any) -> tuple[str, float]:
    name, detector = run.config.geometry.detector if run.config.geometry is not None else None, integrator.detector
    if name is not None:
        detector = named_detector(name, tuple(detector.max_shape))[0]
    known = [detector.sensor] if detector.sensor else list(getattr(detector, "SENSORS", ()))
    if len(known) == 1:
        return str(known[0].material.name), float(known[0].thickness)
    choices = [f"{{material: {one.material.name}, thickness: {one.thickness * 1e6:g} um}}" for one in known]
    said = f"pyFAI knows {len(known)} sensors of this detector; give {' or '.join(choices) or 'material and thickness'}"
    raise run.error("corrections.sensor", said)


def _bad_pixels(settings: Corrections, bits: Bits, dark: Dark | None, flat: Floats | None) -> tuple[str, ...]:
    """Mask what is found to be of no use; what it was, in words."""
    limits = settings.bad_pixels
    if limits is None:
        return ()
    used, found = bits == 0, []
    if dark is not None:
        found += bad_pixels.in_dark(dark, used, hot=limits.hot, noisy=limits.noisy)
    if flat is not None:
        found += bad_pixels.in_flat(flat, used, limits.flat)
    for kind in found:
        bits |= np.where(kind.pixels, kind.bits, 0).astype(np.uint16)
    return tuple(f"{np.count_nonzero(kind.pixels)} {kind.words}" for kind in found)


def pedestal(run: RunFile, info: SourceInfo) -> float:
    """Constant offset of the detector in ADU: as configured, else as the header says, else 0."""
    given = run.config.corrections.pedestal if run.config.corrections is not None else None
    return given if given is not None else info.pedestal or 0.0


def _image(run: RunFile, key: str, given: ImageFile | None, info: SourceInfo) -> Floats | None:
    if given is None:
        return None
    try:
        image = turned(read_image(given.file), given.orientation)
    except BadInput as error:
        raise run.error(key, str(error)) from None
    if image.shape != info.shape:
        raise run.error(key, f"{given.file.name} has {image.shape} pixels, the frames have {info.shape}")
    return image.astype(np.float64)


def _pixel_mask(run: RunFile, integrator: Any, flat: Floats | None, info: SourceInfo) -> Bits:
    """The user's mask, the detector's own, and pixels whose flat is no positive number."""
    given = _image(run, "corrections.mask", run.config.corrections.mask if run.config.corrections else None, info)
    bits: Bits = np.zeros(info.shape, dtype=np.uint16)
    if given is not None:
        bits[given != 0] |= USER  # NaN, too
    bits[_detector_mask(run, integrator, info)] |= GAP
    if flat is not None:
        bits[~(np.isfinite(flat) & (flat > 0))] |= DEAD
    if bits.all():
        raise run.error("corrections.mask", "every pixel is masked; non-zero means masked, is it the other way round?")
    return bits


def _check_range(run: RunFile, integrator: Any, mask: Bools) -> None:
    integration = run.config.integration
    assert integration is not None
    q = pixel_q_nm(integrator, mask.shape)[~mask]
    if not ((q >= integration.q_min) & (q <= integration.q_max)).any():
        raise run.error(
            "integration.q_min",
            f"no unmasked pixel lies in {integration.q_min:g}-{integration.q_max:g} 1/nm; "
            f"the detector covers {q.min():.3g}-{q.max():.3g} 1/nm",
        )


def _key(values: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    content = hashlib.sha256(repr(sorted(values.items())).encode())
    for name, array in sorted(arrays.items()):
        content.update(name.encode() + (b"" if array is None else np.ascontiguousarray(array).tobytes()))
    return content.hexdigest()
