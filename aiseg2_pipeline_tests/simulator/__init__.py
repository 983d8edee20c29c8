"""Tests of aiseg2_pipeline/simulator."""
