"""The known run as fixtures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.outputs.known_run import make_result, with_reaction


@pytest.fixture(scope="session")
def result():
    """Forty frames of 60 bins with everything in it."""
    return make_result(40, 60)


@pytest.fixture(scope="session")
def bare(result):
    """The same curves without background, scale, model or quantities, as of a run without a `model` section."""
    return replace(result, background=None, scale=None, fits=None, model=None, quantities=None, warnings=())


@pytest.fixture(scope="session")
def reacted(result):
    """The known run with an analysis, a comparison with the kinetic model and aliquots."""
    return with_reaction(result)
