"""`python -m aiseg2_pipeline.cli`."""

from aiseg2_pipeline.cli.main import main

main(prog_name="aiseg2-pipeline")
