"""Tests of aiseg2_pipeline/ingest."""
