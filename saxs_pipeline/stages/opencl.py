"""The sums of `science.binning.sums` on an OpenCL device (a GPU), by pyFAI's CSR integrator; imported only then.

The device adds float32 pixels up in two parts, high and low, so that only values above 2²⁴ are rounded.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.science.binning import Limits, Sums, WholePixels
from saxs_pipeline.types import BadInput, Floats

_device = threading.Lock()
"""One frame at a time: an integrator has one place for the image, and threads would get the sums of one another."""

_engines: WeakKeyDictionary[WholePixels, Any] = WeakKeyDictionary()

CPU = "use `engine: {device: cpu}`"


@cache
def device_name() -> str:
    """Of the device that pyFAI chooses, tried once: the fastest that it finds, or that of the variable PYOPENCL_CTX.

    Raises BadInput without pyopencl, without a device, or where pyFAI does not get a right sum from it.
    """
    if find_spec("pyopencl") is None:
        raise BadInput(f"opencl needs pyopencl: pip install 'saxs-pipeline[opencl]', or {CPU}")
    from pyFAI.opencl import ocl

    if ocl is None or not ocl.nb_devices:
        raise BadInput(f"there is no OpenCL device here: install the driver of the GPU with its OpenCL part, or {CPU}")
    name = str(ocl.create_context().devices[0].name)
    try:
        found = _add(np.array([1, 2, 3, 4], np.uint16), WholePixels(np.array([0, 1, 1, 2], np.uint16), 2)).tolist()
    except Exception as error:  # whatever a driver, or a pyFAI that does not fit it, comes to
        raise BadInput(f"pyFAI cannot use the OpenCL device {name} ({type(error).__name__}: {error}); {CPU}") from None
    if found != [1, 5]:
        raise BadInput(f"the OpenCL device {name} adds 1 and 2 + 3 up to {found}; {CPU}")
    return name


def whole_sums(images: NDArray[Any], bins: WholePixels, limits: Limits) -> Sums:
    """As `science.binning.sums`, to float32 rounding of the single pixels. Raises BadInput where there is no device."""
    name, n = device_name(), len(images)
    raw = np.zeros((n, bins.number))
    found = Sums(raw, raw, np.zeros(n, np.bool_), np.zeros(n, np.int64))
    for k, image in enumerate(images):
        found.empty[k] = not image.any()
        bad = limits.reject(image)
        if bad.any():
            found.rejected[k] = np.count_nonzero(bad & bins.used)
            image = np.where(bad, image.dtype.type(0), image)  # noqa: PLW2901
        try:
            raw[k] = _add(image, bins)
        except MemoryError as error:  # pyFAI's word for whatever the device refuses
            raise BadInput(f"{name} cannot take frames of this size ({error}); {CPU}") from None
    return found


def _add(image: NDArray[Any], bins: WholePixels) -> Floats:
    with _device:
        if bins not in _engines:
            _engines[bins] = _engine(bins)
        _engines[bins].integrate_ng(image, out_merged=False, out_avgint=False, out_sem=False, out_std=False)
        high, low = _engines[bins].get_buffer("merged8")[:, :2].T.astype(np.float64)
    return np.asarray(high + low)


def _engine(bins: WholePixels) -> Any:
    """pyFAI's integrator with these bins on the device."""
    from pyFAI.opencl.azim_csr import OCL_CSR_Integrator

    order, filled, starts = bins.in_order
    first = np.zeros(bins.number + 1, np.int32)
    first[filled + 1] = np.diff(starts, append=len(order))
    operator = np.ones(len(order), np.float32), order.astype(np.int32), np.cumsum(first, dtype=np.int32)
    return OCL_CSR_Integrator(operator, bins.label.size)
