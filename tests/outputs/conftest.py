"""The known run as fixtures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.outputs.known_run import make_result


@pytest.fixture(scope="session")
def result():
    """Forty frames of 60 bins with everything in it."""
    return make_result(40, 60)


@pytest.fixture(scope="session")
def bare(result):
    """The same curves without background, scale, model or quantities, as of a run without a `model` section."""
    return replace(result, background=None, scale=None, fits=None, model=None, quantities=None, warnings=())
