"""The household's page: what the store holds, as pages and as JSON, in a process of its own.

It imports neither Dagster nor pandas, opens the stores read-only and can change nothing. So it may be shown to every phone
at home, while Dagster's pages, which launch runs and have no login, stay on the machine.

    python -m aiseg2_pipeline.web
"""
