"""Servers, devices and frames that tests share. A promise and its assertions belong in a test."""
