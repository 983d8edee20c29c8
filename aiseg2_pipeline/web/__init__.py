"""The household's page."""
