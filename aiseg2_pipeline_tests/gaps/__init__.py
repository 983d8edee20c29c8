"""Tests of aiseg2_pipeline/gaps."""
