"""The browser page, `promptmii ui`: a thin layer over `pipeline` and `workbench`.

`app` has the routes, `work` the work of jobs, `jobs` the queue that runs them, and `store` the history.
"""
