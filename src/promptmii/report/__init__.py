"""What a run found, for reading: statistics, tables, figures, and one page that holds them all. Everything here reads records alone."""
