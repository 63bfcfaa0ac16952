"""What is legal in a recipe and usually a mistake, under the codes of `trainer.preflight.codes`. Pure.

Sources of the limits: QLoRA (2023), *LoRA Without Regret* (2025), LoRA+ (2024), and what was measured here
(docs/training.md). Only what is an error and not waived stops a run.
"""

from collections.abc import Iterator

from registry.client import InvalidRequest
from registry.records import Policy
from trainer.estimate import Estimate
from trainer.preflight.codes import Problem, blocking, found
from trainer.recipe import Recipe

SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256)
_VLLM_DEFAULT_RANK = 16
_STOPS = 0.95


def lint(recipe: Recipe) -> list[Problem]:
    """What a recipe alone tells."""
    return [*_rates(recipe), *_sizes(recipe), *_departures(recipe)]


def lint_estimate(recipe: Recipe, estimate: Estimate, memory_bytes: int) -> list[Problem]:
    """What its data and base tell as well. memory_bytes: what the machine, or its GPU, has in all."""
    problems = []
    learnt, parameters = estimate.trained_tokens / max(recipe.training.epochs, 1), estimate.adapter_parameters
    if learnt > parameters:
        problems.append(found("W110", f"{learnt:,.0f} tokens to learn, {parameters:,} parameters of the adapter"))
    if 0 < estimate.steps < 50:
        problems.append(found("W131", f"{estimate.steps} steps of {_rows_in_a_step(recipe)} rows in all"))
    if estimate.memory_bytes > memory_bytes:
        message = f"about {_gib(estimate.memory_bytes)} needed at the peak, this machine has {_gib(memory_bytes)}"
        problems.append(found("E170", message))
    return problems


def lint_policy(policy: Policy) -> list[Problem]:
    """What is wrong with the policy that will judge the adapter: a base often passes an absolute limit untrained."""
    allowed = policy.perplexity.max_ratio_to_base
    if allowed <= 1:
        return []
    return [found("W150", f"max_ratio_to_base = {allowed:g} lets an adapter pass that is worse than its base")]


def lint_result(metrics: dict[str, float]) -> list[Problem]:
    """What is known only once the adapter is there."""
    share = metrics.get("stopped_share", 1.0)
    return [found("W190", f"{share:.0%} of the answers ended by themselves")] if share < _STOPS else []


def require(problems: list[Problem], recipe: Recipe) -> None:
    """Raises InvalidRequest that lists every error which the recipe does not waive."""
    if stopping := [f"{one.rule}: {one.message}; {one.fix}" for one in blocking(problems, recipe.waivers)]:
        remedy = "mend it, or waive it with [[waive]] code and reason (`--waive CODE --reason TEXT`)"
        raise InvalidRequest(f"the run is not begun: {'; '.join(stopping)}. {remedy}", stopping)


def _rates(recipe: Recipe) -> Iterator[Problem]:
    rate = recipe.training.learning_rate
    if rate < 5e-5:
        yield found("W101", f"learning_rate {rate:g} is a full fine-tuning value; LoRA learns little below 5e-5")
    if rate > 5e-4 and recipe.replay is None:
        yield found(
            "W102", f"learning_rate {rate:g} without replay rows: expect the base's general knowledge to suffer"
        )
    if rate > 2e-3:
        yield found("E103", f"learning_rate {rate:g} is above 2e-3")
    if rate < 1e-4 and recipe.lora.dtype == "bfloat16":
        yield found("W104", f"learning_rate {rate:g} with a bfloat16 adapter: its steps are smaller than its rounding")
    if recipe.training.epochs > 3:
        yield found("W132", f"{recipe.training.epochs:g} epochs: more than 3 mostly memorise the wording")


def _sizes(recipe: Recipe) -> Iterator[Problem]:
    rank = recipe.lora.rank
    if rank not in SERVED_RANKS:
        above = next(one for one in SERVED_RANKS if one >= rank)
        yield found("W111", f"rank {rank} is padded to {above} by the engine; {above} costs the same to serve")
    elif rank > _VLLM_DEFAULT_RANK and recipe.serving is None:
        yield found("W111", f"rank {rank} is above {_VLLM_DEFAULT_RANK}, which vLLM serves without being told")
    if recipe.serving is not None and rank > recipe.serving.max_lora_rank:
        yield found("E112", f"lora.rank = {rank}, serving.max_lora_rank = {recipe.serving.max_lora_rank}")
    if recipe.training.padding_side is not None:
        yield found(
            "W120",
            f"padding_side = {recipe.training.padding_side!r}; rows are padded on the right while training, and on "
            "the left when answers are generated",
        )
    if (rows := _rows_in_a_step(recipe)) > 32:
        yield found("W130", f"{rows} rows in a step")


def _departures(recipe: Recipe) -> Iterator[Problem]:
    """The article's rules of thumb, for a recipe that claims to follow them."""
    if recipe.preset != "article":
        return
    plan = recipe.training
    kept = {
        "training.learning_rate": (plan.learning_rate, 2e-5 <= plan.learning_rate <= 5e-5, "2e-5 to 5e-5"),
        "lora.rank": (recipe.lora.rank, recipe.lora.rank in (8, 16), "8 or 16"),
        "training.epochs": (plan.epochs, 1 <= plan.epochs <= 3, "1 to 3"),
        "training.max_length": (plan.max_length, plan.max_length == 2048, "2048"),
        "training.accumulate": (plan.accumulate, 4 <= plan.accumulate <= 8, "4 to 8"),
    }
    for key, (value, holds, rule) in kept.items():
        if not holds:
            yield found("W105", f"{key} = {value:g}; the preset `article` stands for {rule}")


def _rows_in_a_step(recipe: Recipe) -> int:
    return recipe.training.batch_size * recipe.training.accumulate


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"
