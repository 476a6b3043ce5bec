"""Builds a corpus of clean tasks, whose splits share no text, from many local or hub datasets.

The stages, in order: `listing` and `hub` (find datasets), `fetch` (sample each, under limits that `workers` enforces),
`clean` (columns, then rows), `split`. `build` runs them, `overlap` finds texts that tasks and splits share, `card`
describes the result.
"""
