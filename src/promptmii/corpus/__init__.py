"""Many datasets, from folders or the hub, become one corpus of clean tasks whose splits share no text.

The stages, in order: `listing` and `hub` (what there is), `fetch` (a sample of each, read by `process` under limits
and spread by `workers`), `columns`, `clean`, `split`. `build` runs them, `leakage` checks the result, `card`
describes it.
"""
