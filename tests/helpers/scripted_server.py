"""A server on this machine that speaks as much of the OpenAI protocol as is used, and fails as it is told to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Fault = int | str
HANG, HALF, DROP, DIE = "hang", "half", "drop", "die"  # other texts are sent as the body of a reply


def question_of(body: dict[str, Any]) -> str:
    """The text of the last turn, without its pictures."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


class ScriptedServer(ThreadingHTTPServer):
    """Answers with `reply(body)`.

    Args:
        faults: of the first requests, in the order they come: a status (with Retry-After), HANG (no byte until the
            client gives up), HALF (a reply cut in the middle), DROP (closed without a reply), DIE (from here on nobody
            is there), or a text to send in place of a reply.
        die_after: whole answers after which it dies.
        reply: gives the answer's text.

    Attributes:
        asked: the bodies of all requests.
        answered: how often each question was answered in full, by (text, seed).
    """

    daemon_threads = True

    def __init__(
        self,
        faults: Sequence[Fault] = (),
        reply: Callable[[dict[str, Any]], str] = lambda body: f"answer to {question_of(body)}",
        die_after: int | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.reply, self.die_after = list(faults), reply, die_after
        self.asked: list[dict[str, Any]] = []
        self.answered: Counter[tuple[str, int | None]] = Counter()
        self.keys: set[str] = set()
        self.on_request: Callable[[int], bool] = lambda number: False  # True: no answer to this one
        self.lock = threading.Lock()
        self.dead, self.released = False, threading.Event()
        self.at_once = self.most_at_once = 0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def stop(self) -> None:
        self.dead = True
        self.released.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(body)
            number = len(server.asked)
            server.keys.add(self.headers["Authorization"])
            fault: Fault | None = server.faults.pop(0) if server.faults else None
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        threading.Event().wait(0.01)  # long enough for several requests to be in flight
        with server.lock:
            server.at_once -= 1
            if fault == DIE or (server.die_after is not None and server.answered.total() >= server.die_after):
                server.dead = True
        if server.on_request(number) or server.dead or fault == DROP:
            self.close_connection = True
            return
        if fault == HANG:
            server.released.wait(20)
            self.close_connection = True
            return
        whole = self._whole(body)
        if fault == HALF:
            self._send(200, whole[: len(whole) // 2], len(whole))
            self.close_connection = True
        elif isinstance(fault, int):
            self._send(fault, json.dumps({"error": {"message": "x"}}))
        elif fault is not None:
            self._send(200, fault)
        else:
            with server.lock:
                server.answered[question_of(body), body.get("seed")] += 1
            self._send(200, whole)

    def _whole(self, body: dict[str, Any]) -> str:
        finish = "length" if body["max_tokens"] < 4 else "stop"
        message = {"role": "assistant", "content": self.server.reply(body)}
        return json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "finish_reason": finish, "message": message}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
            }
        )

    def _send(self, status: int, text: str, length: int | None = None) -> None:
        sent = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent) if length is None else length))
        self.send_header("Retry-After", "0.02")
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts servers with the arguments of `ScriptedServer`; and lets clients wait for hundredths of a second."""
    monkeypatch.setattr("fcot_vl.instruct.backends.endpoint.WAITS", (0.01, 0.01, 0.02, 0.02, 0.02, 0.02))
    servers: list[ScriptedServer] = []

    def start(*faults: Fault, **settings: Any) -> ScriptedServer:
        servers.append(ScriptedServer(faults, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
