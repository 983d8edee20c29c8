"""Tests of aiseg2_pipeline/aiseg2."""
