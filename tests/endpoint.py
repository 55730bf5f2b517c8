"""An OpenAI-compatible endpoint on a loopback port, which answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server sends: a chat completion, or an error status, held back until ``until`` is set."""

    text: str | None = "fine"
    finish_reason: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    until: threading.Event | None = None


Script = Callable[[str, int], Reply]
"""(the last message's content, which attempt at it, from 1) → the reply."""


class Teacher:
    """An OpenAI-compatible endpoint that follows a script and remembers what it was asked."""

    def __init__(self) -> None:
        self.script: Script = lambda prompt, attempt: Reply()
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.paths: list[str] = []
        self.num_at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                teacher.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def prompts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        prompt = request["messages"][-1]["content"]
        with self._lock:
            self.requests.append(request)
            self.paths.append(handler.path)
            self.authorizations.append(handler.headers["authorization"])
            attempt = self.prompts().count(prompt)
            self.num_at_once += 1
            self.most_at_once = max(self.most_at_once, self.num_at_once)
        reply = self.script(prompt, attempt)
        if reply.until is not None:
            assert reply.until.wait(30)
        body = reply.body
        if body is None:
            message = {"role": "assistant", "content": reply.text}
            choices = [{"index": 0, "message": message, "finish_reason": reply.finish_reason}]
            usage = {"prompt_tokens": 5, "completion_tokens": 3}
            body = json.dumps({"model": "teacher-v2", "choices": choices, "usage": usage})
        with self._lock:
            self.num_at_once -= 1
        try:
            handler.send_response(reply.status)
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.send_header("content-length", str(len(body.encode())))
            handler.end_headers()
            handler.wfile.write(body.encode())
        except OSError:
            pass  # the client has given up, as some tests want it to

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
