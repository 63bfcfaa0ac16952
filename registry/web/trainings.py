"""The page of a training run: how far it is, its curves, what happened. It loads itself anew while the run goes on."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from litestar import Controller, Response, get
from litestar.params import FromPath
from markupsafe import Markup

from registry.api.door import OPEN, AnyRequest
from registry.api.trainings import READERS, curve, thinned
from registry.commands import trainings
from registry.commands.context import Context
from registry.records import TrainingInfo, TrainingStatus
from registry.web.rendering import ask, in_words, render, signed_in

_WIDE, _TALL, _LEFT, _BELOW = 640, 180, 64, 22
_POINTS, _EVENTS = 400, 40
_REFRESH_SECONDS = "5"
_OPEN_STATUSES = (TrainingStatus.QUEUED, TrainingStatus.RUNNING)


class TrainingPages(Controller):
    """Runs in a browser."""

    include_in_schema = False

    @get("/trainings/{training:str}", opt=OPEN)
    async def run(self, request: AnyRequest, training: FromPath[str]) -> Response[str]:
        def question(context: Context) -> dict[str, Any]:
            stored = trainings.find_training(context, training)
            events = trainings.events_of(context, stored)
            points = thinned(curve(events), _POINTS)
            run = trainings.describe(context, stored)
            return {
                "run": run,
                "ends": expected_end(run, context.time),
                "loss": line_chart("loss", [(one.step, one.loss) for one in points]),
                "rate": line_chart("learning rate", [(one.step, one.learning_rate) for one in points]),
                "events": [event for event in events if event.type != "metrics"][-_EVENTS:],
                "person": context.principal.person,
                "role": context.principal.role,
            }

        async def found() -> Response[str]:
            values = await ask(request, await signed_in(request, *READERS), question)
            page = render(request, "training.html", values)
            if values["run"].status in _OPEN_STATUSES:
                page.headers["Refresh"] = _REFRESH_SECONDS
            return page

        return await in_words(request, found)


def expected_end(run: TrainingInfo, now: datetime) -> str | None:
    """When the present stage of a running run is expected to be over, UTC."""
    left = run.progress.seconds_left if run.progress else None
    if run.status is not TrainingStatus.RUNNING or left is None or not math.isfinite(left):
        return None
    return (now + timedelta(seconds=min(left, 10 * 365 * 86400.0))).strftime("%Y-%m-%d %H:%M")


def line_chart(name: str, points: Sequence[tuple[int, float | None]]) -> Markup | None:
    """A value over steps, with its least and greatest written beside it; None for fewer than two values."""
    known = [(step, value) for step, value in points if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return None
    steps, values = [step for step, _ in known], [value for _, value in known]
    low, high = min(values), max(values)
    line = " ".join(f"{_across(step, steps[0], steps[-1]):.1f},{_down(value, low, high):.1f}" for step, value in known)
    words = f"{name} from {values[0]:.4g} at step {steps[0]} to {values[-1]:.4g} at step {steps[-1]}"
    shape = (
        '<svg class="chart curve" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" role="img" '
        'aria-label="{words}"><path class="scale" d="M{left} 10V{bottom}H{wide}"/>'
        '<text class="tick end" x="{beside}" y="16">{high}</text>'
        '<text class="tick end" x="{beside}" y="{bottom}">{low}</text>'
        '<text class="tick start" x="{left}" y="{tall}">step {first}</text>'
        '<text class="tick end" x="{wide}" y="{tall}">{last}</text>'
        '<polyline class="line" points="{line}"/></svg>'
    )
    return Markup(shape).format(
        wide=_WIDE,
        tall=_TALL,
        words=words,
        left=_LEFT,
        bottom=_TALL - _BELOW,
        beside=_LEFT - 6,
        high=f"{high:.3g}",
        low=f"{low:.3g}",
        first=steps[0],
        last=steps[-1],
        line=line,
    )


def _across(step: int, first: int, last: int) -> float:
    return _LEFT + (step - first) / max(1, last - first) * (_WIDE - _LEFT - 2)


def _down(value: float, low: float, high: float) -> float:
    bottom = _TALL - _BELOW
    # A constant is a line in the middle; a span too wide for a float is none that a curve could show.
    share = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5
    return bottom - share * (bottom - 10)
