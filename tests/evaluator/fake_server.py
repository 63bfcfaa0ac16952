"""vLLM's HTTP routes over the fake engine: a real server on 127.0.0.1, sound or faulty.

It answers as vLLM 0.32 was seen to answer, errors included.
"""

import contextlib
import json
import math
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from factories import make_weights
from fake_engine import FakeEngine

from evaluator.engine import EngineDied, EngineRefused, Prompt


class Broken(NamedTuple):
    """What is wrong with a server. The defaults: nothing.

    version, longest: what it tells. loads: whether adapters can be loaded at run time. sees: whether it finds them.
    says: the text of every completion in place of the right one. nulls: null for every log-probability that is not a
    number, otherwise NaN. strict: as vLLM, which fails where a number is NaN. hangs: seconds before each completion.
    drops: completions end without a reply. cuts: most tokens of an answer, whatever was asked for. status: of every
    completion. health: status of /health. info: what /server_info tells, which only development mode has.
    fingerprint: what completions tell of the configuration.
    """

    version: str = "0.32.0"
    longest: int = 1024
    loads: bool = True
    sees: bool = True
    says: str | None = None
    nulls: bool = False
    strict: bool = False
    hangs: float = 0.0
    drops: bool = False
    cuts: int | None = None
    status: int = 200
    health: int = 200
    info: dict[str, Any] | None = None
    fingerprint: str | None = "vllm-0.32.0-fake"


class FakeServer:
    """A server that runs. `calls` has the body of every request that changed or asked something, by path."""

    def __init__(self, base: Path, engine: FakeEngine, broken: Broken) -> None:
        self.base, self.engine, self.broken = base, engine, broken
        self.adapters: dict[str, str] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        self._open: list[socket.socket] = []
        self._asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply(*server.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.calls.append((self.path, body))
                if self.path == "/v1/completions" and server.broken.drops:
                    self.close_connection = True
                    return
                self._reply(*server.post(self.path, body))

            def _reply(self, status: int, text: str) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):  # whoever asked has gone
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def process_request(self, request: Any, client_address: Any) -> None:
                server._open.append(request)
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        for connection in self._open:
            with contextlib.suppress(OSError):  # closed by the other side
                connection.shutdown(socket.SHUT_RDWR)

    # -- routes ---------------------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, str]:
        match path.partition("?")[0]:
            case "/health":
                return self.broken.health, ""
            case "/version":
                return 200, json.dumps({"version": self.broken.version})
            case "/v1/models":
                base = {"id": "base", "root": str(self.base), "parent": None, "max_model_len": self.broken.longest}
                adapters = [{"id": name, "root": at, "parent": "base"} for name, at in self.adapters.items()]
                return 200, json.dumps({"object": "list", "data": [base, *adapters]})
            case "/server_info" if self.broken.info is not None:
                return 200, json.dumps(self.broken.info)
        return 404, json.dumps({"detail": "Not Found"})

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        match path:
            case "/v1/load_lora_adapter" if self.broken.loads:
                return self._load(body["lora_name"], body["lora_path"])
            case "/v1/unload_lora_adapter" if body["lora_name"] in self.adapters:
                del self.adapters[body["lora_name"]]
                return 200, "Success"
            case "/v1/completions":
                self._asked.append(body["model"])
                try:
                    return self._completions(body)
                finally:
                    self._asked.remove(body["model"])
        return 404, json.dumps({"detail": "Not Found"})

    def _load(self, name: str, path: str) -> tuple[int, str]:
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded. If you want to load the adapter")
        if not self.broken.sees:
            return _error(404, f"Loading lora {name} failed: No adapter found for {path}")
        if self.engine.faults.refuses:
            return _error(500, "Call to add_lora method failed: LoRA rank 32 is greater than max_lora_rank 16.")
        self.adapters[name] = path
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _completions(self, body: dict[str, Any]) -> tuple[int, str]:
        self._stop.wait(self.broken.hangs)
        if self.broken.status != 200:
            return _error(self.broken.status, "EngineCore encountered an issue.")
        if self.broken.says is not None:
            return 200, self.broken.says
        model = body["model"]
        if model != "base" and model not in self.adapters:
            return _error(404, f"The model `{model}` does not exist.")
        adapter = None if model == "base" else Path(self.adapters[model])
        longest = max(map(len, body["prompt"]))
        if longest + body["max_tokens"] > self.broken.longest:
            return _error(400, f"This model's maximum context length is {self.broken.longest} tokens, not {longest}.")
        try:
            with self._one_at_a_time:
                self.engine.beside = {Path(self.adapters[name]) for name in self._asked if name in self.adapters}
                choices = self._choices(body, [Prompt(ids, adapter) for ids in body["prompt"]])
        except (EngineDied, EngineRefused) as error:
            return _error(500, str(error))
        for index, choice in choices.items():
            choice["index"] = index
        found = {
            "choices": [choices[index] for index in sorted(choices)],
            "system_fingerprint": self.broken.fingerprint,
        }
        try:
            return 200, json.dumps(found, allow_nan=not self.broken.strict)
        except ValueError as error:
            return _error(400, str(error))

    def _choices(self, body: dict[str, Any], prompts: list[Prompt]) -> dict[int, dict[str, Any]]:
        if "prompt_logprobs" in body:
            scored = self.engine.score(prompts)
            return {index: {"prompt_logprobs": self._rows(prompts[index].ids, *one)} for index, one in scored}
        if options := body.get("logprob_token_ids"):
            names = [f"token_id:{option}" for option in options]
            return {
                index: {"logprobs": {"top_logprobs": [dict(zip(names, map(self._json, found), strict=True))]}}
                for index, found in self.engine.choose(prompts, options)
            }
        limit = min(body["max_tokens"], self.broken.cuts or body["max_tokens"])
        if body["temperature"]:
            said = self.engine.sample(prompts, limit, body["seed"])
        else:
            said = self.engine.generate(prompts, limit, body.get("stop", ()))
        return {index: {"text": one.text, "token_ids": one.ids, "finish_reason": one.finish} for index, one in said}

    def _rows(self, ids: Any, logprobs: list[float], greedy: list[bool]) -> list[Any]:
        """Each token's own value, and that of the likeliest."""
        rows: list[Any] = [None]
        for token, value, likeliest in zip(ids[1:], logprobs, greedy, strict=False):
            row = {str(token): {"logprob": self._json(value)}}
            if not likeliest:
                row[str((token + 1) % 256)] = {"logprob": self._json(value + 0.1)}
            rows.append(row)
        return rows

    def _json(self, value: float) -> float | None:
        return None if math.isnan(value) and self.broken.nulls else value


@contextlib.contextmanager
def running_server(base: Path, engine: FakeEngine | None = None, **broken: Any) -> Iterator[FakeServer]:
    server = FakeServer(base, engine or FakeEngine(), Broken(**broken))
    try:
        yield server
    finally:
        server.close()


def make_base(folder: Path, fill: int = 1) -> Path:
    """The files by which a base is known, and nothing in them."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(make_weights(fill=fill))
    return folder


def _error(status: int, message: str) -> tuple[int, str]:
    return status, json.dumps({"error": {"message": message, "type": "Error", "param": None, "code": status}})
