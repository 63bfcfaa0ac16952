"""An engine with known logits, bytes for tokens, and the faults of the real one.

A log-probability depends on a token and the one before it; an adapter raises all of them by an amount that its
weights decide. Texts are UTF-8 bytes, so that prompts can be read back and answered by a function; without one the
logits answer.
"""

import random
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.engine import Answer, EngineDied, EngineRefused, Prompt, Scores
from evaluator.rendering import Scored, letter, tokenizer_digest
from registry.client import Message
from registry.records import EngineInfo

Knows = Callable[[str, bool], str]


class Faults(NamedTuple):
    """What is wrong with an engine. The defaults: nothing.

    leaks: base rows get the adapter's weights when a batch holds both (vllm#48421). swaps: rows of one adapter get the
    weights of another when a batch holds both. deaf: adapters have no effect.
    noise: nats by which every second call differs. bad: a value in place of the last score of each text that holds
    `bad_in`. short: one score too few.
    dies_after: results until it is gone for good. refuses: no adapter can be served.
    """

    leaks: bool = False
    swaps: bool = False
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
    `beside`: what else is in its batches, put there by other calls.
    """

    def __init__(self, faults: Faults = SOUND, knows: Knows | None = None, fingerprint: str = "2") -> None:
        self.faults, self.asked, self.closed = faults, {"base": 0, "adapter": 0}, False
        self.stops: dict[str, str | None] = {}
        self.beside: set[Path | None] = set()
        self._knows = knows
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

    def score(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Scores]]:
        batch = {prompt.adapter for prompt in prompts} | self.beside
        return self._serve(prompts, lambda _, one: self._scores(one, batch))

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, stops: Sequence[str] = ()
    ) -> Iterator[tuple[int, Answer]]:
        return self._serve(prompts, lambda _, one: self._answer(one, max_tokens, stops))

    def sample(self, prompts: Sequence[Prompt], max_tokens: int, seed: int) -> Iterator[tuple[int, Answer]]:
        """Bytes that the seed decides."""

        def drawn(index: int, one: Prompt) -> Answer:
            draw = random.Random(f"{seed + index} {bytes(one.ids).hex()} {self._shift(one.adapter)}")
            ids = [draw.randrange(97, 123) for _ in range(max_tokens)]
            return Answer(bytes(ids).decode(), ids, "length")

        return self._serve(prompts, drawn)

    def choose(self, prompts: Sequence[Prompt], options: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        """What `knows` answers begins with the byte that is likeliest."""

        def chosen(_: int, one: Prompt) -> list[float]:
            shift = self._shift(one.adapter)
            if self._knows is None:
                return [_logprob(one.ids[-1], option) + shift for option in options]
            said = self._knows(question_in(one.ids), shift != 0).encode()
            return [-0.1 if said[:1] == bytes([option]) else -3.0 for option in options]

        return self._serve(prompts, chosen)

    def close(self) -> None:
        self.closed = True

    def _serve(self, prompts: Sequence[Prompt], result: Callable[[int, Prompt], Any]) -> Iterator[tuple[int, Any]]:
        if not prompts:
            return
        self._check_alive()
        if self.faults.refuses and any(prompt.adapter is not None for prompt in prompts):
            raise EngineRefused("ValueError: LoRA rank 32 is greater than max_lora_rank 16.")
        self._calls += 1
        # The real engine answers in the order in which things are ready: short ones first.
        for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids)):
            self._pipe.append((index, prompts[index], result))
        self._pipe.append(None)
        while (reply := self._pipe.popleft()) is not None:
            index, prompt, known = reply
            self._live(prompt)
            yield index, known(index, prompt)

    def _check_alive(self) -> None:
        if self.closed or self._left == 0:
            raise EngineDied("the engine died: killed by the test")

    def _live(self, prompt: Prompt) -> None:
        self._check_alive()
        if self._left is not None:
            self._left -= 1
        self.asked["base" if prompt.adapter is None else "adapter"] += 1

    def _scores(self, prompt: Prompt, batch: set[Path | None]) -> Scores:
        shift = self._shift(prompt.adapter)
        others = sorted(one for one in batch - {prompt.adapter} if one is not None)
        if self.faults.leaks and others and prompt.adapter is None:
            shift = 0.5
        if self.faults.swaps and others and prompt.adapter is not None:
            shift = self._shift(others[0])
        shift += self.faults.noise * (self._calls % 2)
        scores = [_logprob(before, token) + shift for before, token in zip(prompt.ids, prompt.ids[1:], strict=False)]
        if self.faults.bad is not None and self.faults.bad_in in bytes(prompt.ids):
            scores[-1] = self.faults.bad
        scores = scores[:-1] if self.faults.short else scores
        return Scores(scores, [score > -1.6 + shift for score in scores])

    def _answer(self, prompt: Prompt, max_tokens: int, stops: Sequence[str]) -> Answer:
        question = question_in(prompt.ids)
        self.stops[question] = "".join(stops) or None
        adapted = self._shift(prompt.adapter) != 0
        said = self._knows(question, adapted) if self._knows else _likeliest(prompt.ids[-1], max_tokens)
        for stop in stops:
            said = said.partition(stop)[0]
        tokens = said.encode()
        cut = tokens[:max_tokens].decode(errors="ignore")
        ids = [*tokens, 0][:max_tokens]
        return Answer(cut, ids, "length" if len(tokens) >= max_tokens else "stop")

    def _shift(self, adapter: Path | None) -> float:
        if adapter is None or self.faults.deaf:
            return 0.0
        return 0.2 + zlib.crc32((adapter / "adapter_model.safetensors").read_bytes()) % 8 / 10


def _logprob(before: int, token: int) -> float:
    return -1.5 - (token * 7 + before * 3) % 11 / 10


def _likeliest(before: int, n: int) -> str:
    """The n letters that follow, each the first of the likeliest."""
    said = ""
    for _ in range(n):
        before = max(range(97, 123), key=lambda token: _logprob(before, token))
        said += chr(before)
    return said


class ByteRenderer:
    """Stands in for `evaluator.rendering.Renderer`: bytes for tokens, a line for a turn."""

    def __init__(self, base: Path) -> None:
        self.digest = tokenizer_digest(base)

    def letters(self, n: int) -> list[int]:
        return [ord(letter(place)) for place in range(n)]

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
