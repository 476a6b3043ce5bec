"""Many datasets, from folders or the hub, become one corpus of clean tasks whose splits share no text.

The stages, in order: `listing` and `hub` (what there is), `fetch` (a sample of each, read under limits by
`workers`), `clean` (columns, then rows), `split`. `build` runs them, `overlap` finds what tasks and splits share,
`card` describes the result.
"""
