"""Tests of aiseg2_pipeline/report."""
