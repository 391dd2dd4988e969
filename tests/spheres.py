"""Models of the fits that tests ask for."""

from saxs_pipeline.model_spec import ModelSpec, Population
from saxs_pipeline.science.curvemodel import CurveModel


def gaussian_model(factor, radius_nm=(0.5, 5.0), sigma_nm=(0.03, 0.6), **more):
    """One population of spheres and a constant."""
    return CurveModel.of(ModelSpec((Population(factor, radius_nm, sigma_nm),), **more))


def two_populations(factor, *, crystals=((1.8, 5.0), (0.05, 0.8)), agglomerates=((0.8, 1.8), (0.03, 0.5)), **more):
    pair = (Population(factor, *crystals, "crystals"), Population(factor, *agglomerates, "agglomerates"))
    return CurveModel.of(ModelSpec(pair, **more))
