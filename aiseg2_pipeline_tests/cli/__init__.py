"""Tests of aiseg2_pipeline/cli."""
