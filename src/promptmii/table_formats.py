"""The file formats of tables. The help lists them, and must not import their readers (`data.readers`)."""

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx")
"""File endings of tables; each may be followed by `.gz`. A `.txt` file is a list of texts."""
NAMES = ", ".join(ending.removeprefix(".") for ending in TABLES)
LINES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""File endings of tables that are read and written row by row."""
WRITTEN = (*LINES, ".parquet")
"""File endings of tables that `predict` writes."""
