"""Runs `python -m aiseg2_pipeline.web`."""

from aiseg2_pipeline.web.server import main

if __name__ == "__main__":
    main()
