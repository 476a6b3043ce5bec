"""Builds a corpus of clean tasks from many local or hub datasets. Its splits share no texts.

The stages in order: `listing` and `hub` find datasets, `fetch` samples each (`workers` enforces its limits), `clean`
chooses columns and then rows, `split` assigns tasks to splits. `build` runs the stages, `overlap` finds texts that
tasks and splits share, and `card` describes the result.
"""
