"""The grid that fits start from: what of it is kept for the next chunk, and which points it has."""

import numpy as np

from saxs_pipeline.science import scan
from saxs_pipeline.science.curvemodel import CurveModel
from tests.spheres import gaussian_model, two_populations


def test_all_grids_of_a_run_with_two_populations_and_both_ranges_are_kept():
    both = two_populations(
        2e-3,
        crystals=((1.8, 2.0), (0.05, 0.1)),
        agglomerates=((1.5, 1.8), (0.05, 0.1)),
        power_law=(3.0, 4.5),
        volume_fraction=(0.01, 0.02),
    )
    q = np.linspace(0.2, 3, 12)
    models = [
        one for model in (both, *(CurveModel.of(both.alone(k)) for k in (0, 1))) for one in (model, *model.at_limits)
    ]
    grids = [scan.scan_of(model, q.tobytes()) for model in models]
    assert len(set(models)) == 27
    assert all(scan.scan_of(model, q.tobytes()) is grid for model, grid in zip(models, grids, strict=True))


def test_exponents_share_the_curves_of_the_spheres():
    """What a model with a range of exponents keeps is little more than what one without a power law does."""
    q = np.linspace(0.2, 3, 12)
    with_range, without = (
        scan.scan_of(gaussian_model(2e-3, power_law=power_law), q.tobytes()) for power_law in ((3.0, 4.5), None)
    )
    assert with_range.spheres is without.spheres
