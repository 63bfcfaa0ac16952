"""The pages of training runs: how far one is, its curves, what happened; and several side by side.

A page loads itself anew while a run of it goes on.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from litestar import Controller, Response, get
from litestar.params import FromPath

from registry.api.door import OPEN, AnyRequest, in_thread
from registry.api.trainings import READERS, curve, saved, thinned
from registry.commands import trainings
from registry.commands.context import Context
from registry.comparison import POINTS, Run, compared, require_comparable
from registry.records import TrainingInfo, TrainingStatus
from registry.storage.views import StoredTraining
from registry.web.curves import LETTERS, Curves, line_chart, loss_chart, swatch
from registry.web.rendering import ask, in_words, render, signed_in

_EVENTS, _MARKS = 40, 200
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
            points = thinned(curve(events), POINTS)
            run = trainings.describe(context, stored)
            return {
                "run": run,
                "ends": expected_end(run, context.time),
                "previous": _previous(context, stored),
                "loss": line_chart("loss", [(one.step, one.loss) for one in points]),
                "rate": line_chart("learning rate", [(one.step, one.learning_rate) for one in points]),
                "events": [event for event in events if event.type != "metrics"][-_EVENTS:],
                "person": context.principal.person,
                "role": context.principal.role,
            }

        async def found() -> Response[str]:
            values = await ask(request, await signed_in(request, *READERS), question)
            return _anew(render(request, "training.html", values), [values["run"]])

        return await in_words(request, found)

    @get("/trainings/compare", opt=OPEN)
    async def compare(self, request: AnyRequest) -> Response[str]:
        """`?run=ID&run=ID`, two to five of them."""
        ids = request.query_params.getall("run", [])

        async def found() -> Response[str]:
            principal = await signed_in(request, *READERS)
            require_comparable(ids)
            runs = await ask(request, principal, lambda context: [_with_curves(context, one) for one in ids])
            shown = {"person": principal.person, "role": principal.role}

            def made() -> Response[str]:
                return _anew(render(request, "comparison.html", {**_values(runs), **shown}), [one.info for one in runs])

            return await in_thread(request, made)  # recipes may be long, and the page is asked for every few seconds

        return await in_words(request, found)


def _anew(page: Response[str], runs: Sequence[TrainingInfo]) -> Response[str]:
    if any(one.status in _OPEN_STATUSES for one in runs):
        page.headers["Refresh"] = _REFRESH_SECONDS
    return page


def _previous(context: Context, stored: StoredTraining) -> str | None:
    """The run of the same adapter that was submitted before this one."""
    before = context.view.trainings(stored.seq, 1, adapter=stored.adapter, scope=context.principal.scope)
    return before[0].id if before else None


def _with_curves(context: Context, id_: str) -> Run:
    stored = trainings.find_training(context, id_)
    events = trainings.events_of(context, stored)
    return Run(trainings.describe(context, stored), thinned(curve(events), POINTS), saved(stored.id, events))


def _curves(run: Run) -> Curves:
    measured = [one for one in reversed(run.saved) if "validation_loss" in one.metrics]
    return Curves(
        [(one.step, one.loss) for one in run.first_stage],
        [(one.step, one.metrics["validation_loss"]) for one in thinned(measured, _MARKS)],
    )


def _values(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        **compared(runs)._asdict(),
        "runs": [
            {"letter": LETTERS[place], "swatch": swatch(place), "info": one.info} for place, one in enumerate(runs)
        ],
        "chart": loss_chart([_curves(one) for one in runs]),
    }


def expected_end(run: TrainingInfo, now: datetime) -> str | None:
    """When the present stage of a running run is expected to be over, UTC."""
    left = run.progress.seconds_left if run.progress else None
    if run.status is not TrainingStatus.RUNNING or left is None or not math.isfinite(left):
        return None
    return (now + timedelta(seconds=min(left, 10 * 365 * 86400.0))).strftime("%Y-%m-%d %H:%M")
