"""The OpenAPI document of the JSON under /api/v1."""

from typing import Any


def document() -> dict[str, Any]:
    """Return the document."""
    return {"openapi": "3.1.0", "info": {"title": "aiseg2-pipeline", "version": "1"}, "paths": {}}
