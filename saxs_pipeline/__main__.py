"""`python -m saxs_pipeline`."""

from saxs_pipeline.apps.cli import main

main(prog_name="saxs-pipeline")
