"""Tests of aiseg2_pipeline/frames."""
