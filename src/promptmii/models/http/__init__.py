"""Models behind OpenAI-compatible servers. `config` is cheap to import; `client` loads the HTTP library."""
