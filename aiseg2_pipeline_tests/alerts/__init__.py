"""Tests of aiseg2_pipeline/alerts."""
