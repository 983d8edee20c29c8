"""Tests of aiseg2_pipeline/store."""
