"""Suites of kind lm-eval on our engine: lm-evaluation-harness's prompts, filters and metrics, our data and model.

Documents are asked as `lm_eval run` asks them by default: plain text, no chat template.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from evaluator.lm_eval_tasks import judge, rebuild, requests_of  # first: it takes the harness offline

# isort: split
import lm_eval.utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from evaluator.engine import Engine, EngineRefused, Prompt, Scores
from registry.client import InvalidRequest, SuiteContent

_MAX_GEN_TOKENS = 256
_BATCH = 256  # documents


class EngineLM(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """The base, or one adapter on it, behind lm-eval's interface; token ids as lm-eval's own backends make them.

    Nothing is ever cut: what is longer than `longest` tokens raises InvalidRequest, where lm-eval drops its beginning.
    """

    def __init__(self, engine: Engine | None, adapter: Path | None, base: Path, longest: int) -> None:
        from transformers import PreTrainedTokenizerFast

        super().__init__()
        self.tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(base)
        self._engine, self._adapter, self._longest = engine, adapter, longest

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text; a text that brings its own BOS gets no second one. Of an empty text: a BOS, or nothing."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return list(self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"])

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Summed log-likelihood of each continuation, and whether each of its tokens was the likeliest."""
        return cast("list[tuple[float, bool]]", super().loglikelihood(requests, disable_tqdm=disable_tqdm))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of whole texts, in windows as lm-eval cuts them where one does not fit."""
        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for (text,) in (one.args for one in requests):
            cut = lm_eval.utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._longest - 2,  # as lm-eval's vLLM backend: a window and one token that is generated
                context_len=1,
            )
            pairs = [lm_eval.utils.make_disjoint_window(one) for one in cut]
            windows += [(None, context, continuation) for context, continuation in pairs]
            counts.append(len(pairs))
        found = iter(self._loglikelihood_tokens(windows))
        return [sum(next(found)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy continuations, ended before the first of each request's stops."""
        eos = self.tokenizer.decode(self.eot_token_id)
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        asked = []
        for index, (context, arguments) in enumerate(one.args for one in requests):
            stops, most = _generation(arguments, eos)
            ids = self.tok_encode(context)
            self._check_request(ids, most)
            asked.append(tuple(ids))
            groups.setdefault((most, tuple(stops)), []).append(index)
        texts = [""] * len(requests)
        for (most, until), members in groups.items():
            distinct = {ids: place for place, ids in enumerate(dict.fromkeys(asked[index] for index in members))}
            answers = dict(self._running.generate(self._prompts(distinct), most, [one for one in until if one != eos]))
            for index in members:
                said = answers[distinct[asked[index]]].text
                texts[index] = str(postprocess_generated_text(said, list(until), None))
        return texts

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        for _, context, continuation in requests:
            self._check_request(context, len(continuation) + 1)
        whole = [(*context, *continuation) for _, context, continuation in requests]
        distinct = {ids: place for place, ids in enumerate(dict.fromkeys(whole))}
        scores = dict(self._running.score(self._prompts(distinct)))
        return [
            _continuation(scores[distinct[ids]], len(ids), len(context))
            for ids, (_, context, _) in zip(whole, requests, strict=True)
        ]

    @property
    def _running(self) -> Engine:
        assert self._engine is not None, "only requests are built without an engine"
        return self._engine

    def _prompts(self, distinct: Mapping[tuple[int, ...], int]) -> list[Prompt]:
        return [Prompt(ids, self._adapter) for ids in distinct]

    def _check_request(self, context: Sequence[int], room: int) -> None:
        """A context is followed by `room` tokens. lm-eval's hf backend asserts that it is not empty."""
        if not context:
            raise InvalidRequest(
                "a request has no token before what is scored or generated: its context is only white space, which "
                "lm-eval counts to the continuation; put a word into doc_to_text, or leave it wholly empty"
            )
        if len(context) + room > self._longest:
            raise InvalidRequest(
                f"a request of {len(context)} tokens and {room} to come does not fit into {self._longest}; leave the "
                "document out, use fewer examples or evaluate with a longer context"
            )


def _continuation(scores: Scores, length: int, context: int) -> tuple[float, bool]:
    """Of `length` ids, all after the first `context`. An empty continuation is certain.

    Raises EngineRefused where a score is missing: the others would belong to other tokens.
    """
    if len(scores.logprobs) != length - 1:
        raise EngineRefused(f"{len(scores.logprobs)} scores for {length} tokens; the engine does not score every token")
    return sum(scores.logprobs[context - 1 :]), all(scores.greedy[context - 1 :])


def _generation(arguments: Mapping[str, Any], eos: str) -> tuple[list[str], int]:
    """Stops, the end of a text among them, and the most tokens to generate."""
    plain = normalize_gen_kwargs(dict(arguments), default_max_gen_toks=_MAX_GEN_TOKENS)
    return list(handle_stop_sequences(list(plain["until"]), eos)), int(plain["max_gen_toks"])


def run_documents(
    engine: Engine, content: SuiteContent, adapter: Path | None, base: Path, longest: int
) -> Iterator[tuple[str, bool, str]]:
    """Item id, whether the task's metric says 1, and what the model said, for each document of a suite of kind lm-eval.

    A document's result depends on no other document of the suite. For tasks that compare log-likelihoods, the output
    lists them, in nats, with the continuation each belongs to.

    Raises InvalidRequest for a suite that cannot be asked (see `check_documents`), EngineRefused for scores that are
    no numbers, EngineDied where the engine broke.
    """
    task, items = rebuild(content)
    model = EngineLM(engine, adapter, base, longest)
    requests = requests_of(task)
    for start in range(0, len(items), _BATCH):
        batch = list(zip(items[start : start + _BATCH], requests[start : start + _BATCH], strict=True))
        together = [one for _, group in batch for one in group]
        replies = getattr(model, together[0].request_type)(together)
        for request, reply in zip(together, replies, strict=True):
            request.resps.append(reply)
        for item, group in batch:
            _check_scores(f"{content.head.name}/{item.id}", group)
            yield item.id, judge(task, item.doc, group), _said(group)


def check_documents(content: SuiteContent, base: Path, longest: int) -> None:
    """Whether every document of a suite of kind lm-eval can be asked, without an engine.

    Raises InvalidRequest for a task that is none, documents that do not fit its templates, and prompts that are longer
    than `longest` tokens, what is to be generated included.
    """
    task, _ = rebuild(content)
    model = EngineLM(None, None, base, longest)
    for group in requests_of(task):
        for one in group:
            if one.request_type == "generate_until":
                model._check_request(model.tok_encode(one.args[0]), _generation(one.args[1], "")[1])
            else:
                pair = model._encode_pair(*one.args) if one.args[0] else ([0], model.tok_encode(one.args[1]))
                model._check_request(pair[0], len(pair[1]) + 1)


def _check_scores(name: str, group: Sequence[Instance]) -> None:
    for request in group:
        if request.request_type != "generate_until" and not math.isfinite(request.resps[0][0]):
            raise EngineRefused(f"{name}: a score is not a number; look at the weights")


def _said(group: Sequence[Instance]) -> str:
    if group[0].request_type == "generate_until":
        return str(group[0].resps[0])
    return "\n".join(f"{one.resps[0][0]:.4f} {one.args[1]!r}" for one in group)
