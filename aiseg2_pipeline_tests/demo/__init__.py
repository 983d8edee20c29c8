"""Tests of aiseg2_pipeline/demo."""
