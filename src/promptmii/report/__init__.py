"""Statistics, tables and figures of a run, and one page that holds them all. Everything here reads records alone."""
