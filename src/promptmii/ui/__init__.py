"""The page: `promptmii ui`. A thin cover of `pipeline` and `workbench` for a browser on this machine.

`app` routes, `work` does what jobs do, `jobs` runs them one after another, `store` keeps what was tried.
"""
