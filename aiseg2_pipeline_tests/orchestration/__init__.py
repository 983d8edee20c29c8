"""Tests of aiseg2_pipeline/orchestration."""
