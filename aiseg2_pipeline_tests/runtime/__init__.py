"""Tests of aiseg2_pipeline/runtime."""
