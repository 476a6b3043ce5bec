"""llama.cpp's server as a program: `python -m promptmii.models.llama.serve MODEL --port PORT`."""

import argparse
import threading

from promptmii.models.llama.files import model_file
from promptmii.models.llama.model import CONTEXT
from promptmii.models.llama.server import start
from promptmii.models.references import gguf_of


def main() -> None:
    """Serve a GGUF file (a path, `owner/name/file` of the hub, or an embedded model) until this process ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, default=CONTEXT, help="Tokens of one request.")
    parser.add_argument("--parallel", type=int, default=4, help="Concurrent requests.")
    given = parser.parse_args()
    gguf = gguf_of(given.model)
    path = model_file(gguf.place if gguf else given.model)
    _server = start(path, (), given.context, host=given.host, port=given.port, parallel=given.parallel)
    threading.Event().wait()


if __name__ == "__main__":
    main()
