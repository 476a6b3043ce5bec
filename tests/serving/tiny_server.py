"""A tiny model server that speaks OpenAI's protocol and fails on demand.

    tiny_server.py MODEL --host HOST --port PORT

The environment variable STATE names a folder. On start, the server writes its process ids and GPUs to
`<port>.<n>.json` there, and later the maximum number of concurrent requests to `peak`. While the folder contains a
file `stuck`, the server does not answer; with a file `broken`, it ends on start.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOCK = threading.Lock()
STATS = {"active": 0, "peak": 0}
STATE = Path(os.environ["STATE"])
WORDS = {"lovely": "good", "waste": "bad", "moving": "warm", "stiff": "cold", "drums": "loud", "harp": "calm"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        while (STATE / "stuck").exists():
            time.sleep(0.05)
        if self.path == "/health" and not os.environ.get("NO_HEALTH"):
            self._answer({})
        elif self.path == "/v1/models":
            self._answer({"data": [{"id": MODEL, "max_model_len": 2048}]})
        else:
            self._answer({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/chat/completions":
            self._answer({"detail": "Not Found"}, 404)
            return
        with LOCK:
            STATS["active"] += 1
            if STATS["active"] > STATS["peak"]:
                STATS["peak"] = STATS["active"]
                (STATE / "peak").write_text(str(STATS["peak"]))
        time.sleep(0.01)
        with LOCK:
            STATS["active"] -= 1
        prompt = body["messages"][-1]["content"]
        text = next((label for word, label in WORDS.items() if word in prompt.rpartition("Input:")[2]), "good")
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._answer({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})

    def _answer(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="+", help="MODEL, or as for vLLM: serve MODEL")
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--tensor-parallel-size", type=int, default=1)
parser.add_argument("--generation-config")
args, _ = parser.parse_known_args()
MODEL = args.model[-1]
if (STATE / "broken").exists():
    sys.exit("the weights are broken")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # like the workers of a real server
info = {"pid": os.getpid(), "child": child.pid, "model": MODEL, "arguments": sys.argv[1:]}
info["gpus"] = os.environ.get("CUDA_VISIBLE_DEVICES")
server = ThreadingHTTPServer((args.host, args.port), Handler)
path = STATE / f"{args.port}.{len(list(STATE.glob(f'{args.port}.*')))}.json"
path.with_suffix(".part").write_text(json.dumps(info))
path.with_suffix(".part").rename(path)
server.serve_forever()
