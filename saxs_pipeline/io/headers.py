"""What the text headers of image files say: ESRF SAXS keys (EDF and LImA), Dectris comments, NXmx scalars.

Every function takes a header as text keys and values and returns plain values; what cannot be trusted is left out
and said in a warning, so that the user gives it in the run file instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from saxs_pipeline.types import Floats, FrameTimes, HeaderGeometry

Header = Mapping[str, str]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_DECTRIS_LINE = re.compile(r"^#\s*([A-Za-z][\w/]*)\s*[:=,\s]\s*(.*)$")
_DATE_START = re.compile(r"\s*\d{4}[-:]\d")
_DATES = ("%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S", "%Y:%m:%d %H:%M:%S.%f", "%Y:%m:%d %H:%M:%S")


def number(header: Header, key: str) -> float | None:
    """The finite number at the start of a value ("0.005 s" → 0.005); None if the key is absent or not a number."""
    match = _NUMBER.match(header.get(key, "").strip())
    value = float(match[0]) if match else math.nan
    return value if math.isfinite(value) else None


def seconds(text: str) -> float | None:
    """ "0.005 s" or "5 ms" → s; a bare number is in s; None where it is neither."""
    match = re.fullmatch(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(s|ms|us|µs)?\s*", text)
    factor = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, None: 1.0}
    return float(match[1]) * factor[match[2]] if match else None


def column(frames: Sequence[Header | None], key: str) -> Floats | None:
    """One number per frame, (n,), NaN where a frame lacks it; None if no frame has it."""
    values = [math.nan if header is None else number(header, key) for header in frames]
    array = np.array([math.nan if value is None else value for value in values])
    return None if np.isnan(array).all() else array


def plausible(geometry: HeaderGeometry, shape: tuple[int, int]) -> str:
    """ "" or the reason why a geometry cannot be that of a SAXS camera; `shape` is (ny, nx).

    The limits are wide: 10 mm to 100 m, pixels of 1 µm to 5 mm, a beam centre within five frame widths, 0.005–5 nm.
    """
    centre = geometry.poni1_m / geometry.pixel1_m, geometry.poni2_m / geometry.pixel2_m
    wavelength = geometry.wavelength_m
    checks = (
        (0.01 <= geometry.distance_m <= 100, f"distance {geometry.distance_m:g} m"),
        (all(1e-6 <= p <= 5e-3 for p in (geometry.pixel1_m, geometry.pixel2_m)), f"pixel {geometry.pixel1_m:g} m"),
        (all(abs(c) <= 5 * n for c, n in zip(centre, shape, strict=True)), f"centre {centre[1]:g}, {centre[0]:g} px"),
        (any(centre), "centre 0, 0 px"),
        (wavelength is None or 5e-12 <= wavelength <= 5e-9, f"wavelength {wavelength} m"),
    )
    return ", ".join(reason for good, reason in checks if not good)


def checked(geometry: HeaderGeometry, shape: tuple[int, int]) -> tuple[HeaderGeometry | None, tuple[str, ...]]:
    """The geometry if it is plausible, else None and a warning."""
    reason = plausible(geometry, shape)
    if reason:
        return None, (f"the geometry in the header is not plausible ({reason}) and is not used",)
    return geometry, ()


def saxs_geometry(header: Header, shape: tuple[int, int]) -> tuple[HeaderGeometry | None, tuple[str, ...]]:
    """Geometry from Center_1/2 (px), PSize_1/2, SampleDistance and WaveLength (m); axis 1 is the fast one.

    poni1 = Center_2·PSize_2, poni2 = Center_1·PSize_1 (Boesecke 2007, J. Appl. Cryst. 40, s423). A tilted detector
    (Rot_1..3 ≠ 0) is refused with a warning: the signs of these angles are not settled between programs.
    """
    keys = ("SampleDistance", "Center_1", "Center_2", "PSize_1", "PSize_2")
    values = [number(header, key) for key in keys]
    if any(value is None for value in values) or not (values[3] and values[4]):
        return None, ()
    tilts = {key: number(header, key) for key in ("Rot_1", "Rot_2", "Rot_3")}
    if any(tilts.values()):
        said = ", ".join(f"{key} = {value:g}" for key, value in tilts.items() if value)
        return None, (f"the header has a rotated detector ({said}): its geometry is not used, give a PONI file",)
    distance, center1, center2, psize1, psize2 = (float(value or 0.0) for value in values)
    wavelength = number(header, "WaveLength" if "WaveLength" in header else "Wavelength")
    return checked(HeaderGeometry(distance, center2 * psize2, center1 * psize1, psize2, psize1, wavelength), shape)


def saxs_dummy(header: Header) -> tuple[float | None, float]:
    """Dummy and DDummy: pixels with |value − Dummy| ≤ DDummy were not measured; Dummy = 0 means that there is none."""
    dummy = number(header, "Dummy")
    return (dummy, abs(number(header, "DDummy") or 0.0)) if dummy else (None, 0.0)


def dectris_keys(text: str) -> dict[str, str]:
    """The "# key value" lines of a Pilatus or Eiger comment block; a bare date line becomes the key `Date`."""
    keys: dict[str, str] = {}
    for raw in text.replace("\x00", "").splitlines():
        line = raw.strip()
        match = _DECTRIS_LINE.match(line)
        if match:
            keys[match[1]] = match[2].strip().lstrip("=:").strip()
        elif parse_date(line.lstrip("# ")) is not None:
            keys["Date"] = line.lstrip("# ")
    return keys


def dectris_geometry(header: Header, shape: tuple[int, int]) -> tuple[HeaderGeometry | None, tuple[str, ...]]:
    """Geometry from Detector_distance (m), Beam_xy (px), Pixel_size (m) and Wavelength (Å), as Dectris writes them."""
    pixels, centre = (_NUMBER.findall(header.get(key, "")) for key in ("Pixel_size", "Beam_xy"))
    distance, wavelength = number(header, "Detector_distance"), number(header, "Wavelength")
    if len(pixels) < 2 or len(centre) < 2 or distance is None:
        return None, ()
    fast, slow = float(pixels[0]), float(pixels[1])
    if not (fast > 0 and slow > 0):
        return None, ()
    metres = None if wavelength is None else wavelength * 1e-10
    poni1, poni2 = float(centre[1]) * slow, float(centre[0]) * fast
    return checked(HeaderGeometry(distance, poni1, poni2, slow, fast, metres), shape)


def nxmx_geometry(header: Header, shape: tuple[int, int]) -> tuple[HeaderGeometry | None, tuple[str, ...]]:
    """Geometry from the NXmx fields of an Eiger master file: m, px and (incident_wavelength) Å."""
    distance = number(header, "detector_distance") or number(header, "distance")
    keys = ("beam_center_x", "beam_center_y", "x_pixel_size", "y_pixel_size")
    x, y, fast, slow = (number(header, key) for key in keys)
    if distance is None or x is None or y is None or not fast or not slow:
        return None, ()
    wavelength = number(header, "incident_wavelength")
    metres = None if wavelength is None else wavelength * 1e-10
    return checked(HeaderGeometry(distance, y * slow, x * fast, slow, fast, metres), shape)


def parse_date(text: str) -> datetime | None:
    """A date as LImA, Dectris or TIFF files write it; None if it is not one. Zones are kept where given."""
    if not _DATE_START.match(text):
        return None
    text = text.strip()
    for form in _DATES:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def times_from_dates(
    dates: Sequence[datetime | None], exposure_s: Floats | None, origin: str
) -> tuple[FrameTimes | None, tuple[str, ...]]:
    """Starts relative to the first frame from the frames' own dates; refused unless strictly increasing.

    Whole-second stamps of fast frames tie, and then say nothing about the order of the frames within a second.
    """
    known = [date for date in dates if date is not None]
    if not known or exposure_s is None:
        return None, ()
    start = np.array([math.nan if date is None else (date - known[0]).total_seconds() for date in dates])
    if len(known) > 1 and not np.all(np.diff(start[np.isfinite(start)]) > 0):
        return None, (f"{origin}: the time stamps do not increase from frame to frame and are not used",)
    return FrameTimes(start, exposure_s, origin), ()
