"""An engine with known logits, bytes for tokens, and the faults of the real one.

A log-probability depends on a token and the one before it; an adapter raises all of them by an amount that its
weights decide. Texts are UTF-8 bytes, so that prompts can be read back and answered by a function.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.engine import Answer, EngineDied, EngineRefused, Prompt
from evaluator.rendering import Scored
from registry.client import Message
from registry.records import EngineInfo

Knows = Callable[[str, bool], str]


class Faults(NamedTuple):
    """What is wrong with an engine. The defaults: nothing.

    leaks: base rows get the adapter's weights when a batch holds both (vllm#48421). deaf: adapters have no effect.
    noise: nats by which every second call differs. bad: a value in place of the last score of each text that holds
    `bad_in`. short: one score too few.
    dies_after: results until it is gone for good. refuses: no adapter can be served.
    """

    leaks: bool = False
    deaf: bool = False
    noise: float = 0.0
    bad: float | None = None
    bad_in: bytes = b""
    short: bool = False
    dies_after: int | None = None
    refuses: bool = False


SOUND = Faults()


class FakeEngine:
    """See `evaluator.engine.Engine`.

    Like the real one it answers through a pipe: whoever stops listening in the middle of a call leaves the rest of
    the replies for the next. `asked` counts prompts, by "base" or "adapter"; `stops` has the stop of each question.
    """

    def __init__(self, faults: Faults = SOUND, knows: Knows | None = None, fingerprint: str = "2") -> None:
        self.faults, self.asked, self.closed = faults, {"base": 0, "adapter": 0}, False
        self.stops: dict[str, str | None] = {}
        self._knows = knows or (lambda question, adapted: "an answer")
        self._fingerprint = fingerprint
        self._pipe: deque[Any] = deque()
        self._left = faults.dies_after
        self._calls = 0

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="fake",
            distribution="fake",
            version="1",
            torch="none",
            device="cpu",
            dtype="float64",
            serving="lora",
            lora_ops="exact",
            fingerprint="sha256:" + self._fingerprint * 64,
        )

    def score(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, list[float]]]:
        mixed = {prompt.adapter is not None for prompt in prompts} == {True, False}
        return self._serve(prompts, lambda one: self._scores(one, mixed))

    def generate(self, prompts: Sequence[Prompt], max_tokens: int, stop: str | None) -> Iterator[tuple[int, Answer]]:
        return self._serve(prompts, lambda one: self._answer(one, max_tokens, stop))

    def close(self) -> None:
        self.closed = True

    def _serve(self, prompts: Sequence[Prompt], result: Callable[[Prompt], Any]) -> Iterator[tuple[int, Any]]:
        if not prompts:
            return
        self._check_alive()
        self._calls += 1
        # The real engine answers in the order in which things are ready: short ones first.
        for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids)):
            self._pipe.append((index, prompts[index], result))
        self._pipe.append(None)
        while (reply := self._pipe.popleft()) is not None:
            index, prompt, known = reply
            self._live(prompt)
            yield index, known(prompt)

    def _check_alive(self) -> None:
        if self.closed or self._left == 0:
            raise EngineDied("the engine died: killed by the test")

    def _live(self, prompt: Prompt) -> None:
        self._check_alive()
        if self._left is not None:
            self._left -= 1
        if prompt.adapter is not None and self.faults.refuses:
            raise EngineRefused("ValueError: LoRA rank 32 is greater than max_lora_rank 16.")
        self.asked["base" if prompt.adapter is None else "adapter"] += 1

    def _scores(self, prompt: Prompt, mixed: bool) -> list[float]:
        shift = self._shift(prompt.adapter)
        if self.faults.leaks and mixed and prompt.adapter is None:
            shift = 0.5
        shift += self.faults.noise * (self._calls % 2)
        scores = [
            -1.5 - (token * 7 + before * 3) % 11 / 10 + shift
            for before, token in zip(prompt.ids, prompt.ids[1:], strict=False)
        ]
        if self.faults.bad is not None and self.faults.bad_in in bytes(prompt.ids):
            scores[-1] = self.faults.bad
        return scores[:-1] if self.faults.short else scores

    def _answer(self, prompt: Prompt, max_tokens: int, stop: str | None) -> Answer:
        question = question_in(prompt.ids)
        self.stops[question] = stop
        said = self._knows(question, self._shift(prompt.adapter) != 0)
        if stop is not None:
            said = said.partition(stop)[0]
        tokens = said.encode()
        cut = tokens[:max_tokens].decode(errors="ignore")
        return Answer(cut, min(len(tokens) + 1, max_tokens), "length" if len(tokens) >= max_tokens else "stop")

    def _shift(self, adapter: Path | None) -> float:
        if adapter is None or self.faults.deaf:
            return 0.0
        return 0.2 + zlib.crc32((adapter / "adapter_model.safetensors").read_bytes()) % 8 / 10


class ByteRenderer:
    """Stands in for `evaluator.rendering.Renderer`: bytes for tokens, a line for a turn."""

    def __init__(self, base: Path) -> None:
        assert (base / "tokenizer.json").exists()

    def question(self, system: str | None, text: str) -> list[int]:
        return list(f"{system or ''}\nuser: {text}\nassistant: ".encode())

    def conversation(self, system: str | None, messages: Sequence[Message]) -> Scored:
        ids, mask = list(f"{system or ''}\n".encode()), [False] * (len(system or "") + 1)
        for one in messages:
            head, content = f"{one.role}: ".encode(), f"{one.content}\n".encode()
            ids += head + content
            mask += [False] * len(head) + [one.role == "assistant"] * len(content)
        return Scored(ids, mask)


def question_in(ids: Sequence[int]) -> str:
    """The last user message of a prompt by ByteRenderer."""
    return bytes(ids).decode().rpartition("user: ")[2].removesuffix("\nassistant: ")
