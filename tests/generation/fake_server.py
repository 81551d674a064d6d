"""A small server that speaks enough of OpenAI's protocol, with accidents to order."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeServer:
    """Echoes the last message (or the prompt) and the seed; `reply` changes what it says.

    Args:
        port: 0 for any free one.
        fail_first: so many requests get status 500 before anything works.
        die_after: so many answers, then connections are cut.
        reply: from the request's body to a text.
        pause: seconds that an answer takes.
        known: name of its model; None: any.
        adapters: whether adapters can be loaded and unloaded as vLLM does with VLLM_ALLOW_RUNTIME_LORA_UPDATING; what was
            asked is in `loads`, what is there in `loaded`.
    """

    def __init__(
        self, port=0, fail_first=0, die_after=None, reply=None, pause=0.0, known="tiny", adapters=False
    ):
        self.bodies, self.most, self.active, self.failures = [], 0, 0, 0
        self.loads, self.loaded = [], {}
        lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def send(self, status, content):
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                served = [{"id": str(known), "object": "model", "parent": None}]
                served += [{"id": name, "object": "model", "parent": str(known)} for name in fake.loaded]
                self.send(200, {"object": "list", "data": served})

            def adapter(self, body):
                """vLLM's endpoints: one name once, and only what is there can go."""
                if not adapters:
                    return self.send(404, {"detail": "Not Found"})
                verb, name = self.path.rpartition("/")[2].partition("_")[0], body["lora_name"]
                fake.loads.append((verb, name))
                if verb == "load" and name in fake.loaded:
                    return self.send(
                        400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
                    )
                if verb == "load" and not (Path(body["lora_path"]) / "adapter_model.safetensors").exists():
                    return self.send(404, {"error": {"message": "No adapter found"}})
                if verb == "unload" and name not in fake.loaded:
                    return self.send(
                        404, {"error": {"message": f"The lora adapter '{name}' cannot be found."}}
                    )
                if verb == "load":
                    fake.loaded[name] = (Path(body["lora_path"]) / "adapter_model.safetensors").read_bytes()
                else:
                    del fake.loaded[name]
                return self.send(200, "Success")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.endswith("_lora_adapter"):
                    return self.adapter(body)
                if known is not None and body["model"] not in {known, *fake.loaded}:
                    return self.send(404, {"error": {"message": "no such model"}})
                with lock:
                    if fake.failures < fail_first:
                        fake.failures += 1
                        return self.send(500, {"error": {"message": "out of sorts"}})
                    if die_after is not None and len(fake.bodies) >= die_after:
                        self.close_connection = True
                        self.connection.close()
                        return None
                    fake.bodies.append(body)
                    fake.active += 1
                    fake.most = max(fake.most, fake.active)
                time.sleep(pause)
                said = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
                text = reply(body) if reply else f"{said} {body['seed']}"
                choice = {"index": 0, "finish_reason": "stop", "logprobs": None}
                choice |= (
                    {"text": text}
                    if "prompt" in body
                    else {"message": {"role": "assistant", "content": text}}
                )
                kind = "text_completion" if "prompt" in body else "chat.completion"
                usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
                with lock:
                    fake.active -= 1
                return self.send(
                    200,
                    {
                        "id": "x",
                        "object": kind,
                        "created": 0,
                        "model": body["model"],
                        "choices": [choice],
                        "usage": usage,
                    },
                )

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
