"""Models behind OpenAI-compatible servers. `config` is light; importing `client` brings the HTTP library."""
