"""The training libraries, kept quiet: no telemetry, no network beyond what is asked for, no progress bars but ours."""

import contextlib
import importlib.metadata
import logging
import os
import warnings
from collections.abc import Callable, Iterator

from registry.client import InvalidRequest

_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "BITSANDBYTES_NOWELCOME": "1",
}


# trainer/qlora.py overrides methods of these: under another version it may train something else without a word.
_OVERRIDDEN = {"trl": "1.16", "peft": "0.21"}


def require_known(version_of: Callable[[str], str] = importlib.metadata.version) -> None:
    """Raises InvalidRequest where a library is of another version than those whose methods are overridden."""
    problems = [
        f"{name} {found} is installed, and {known} is what the trainer's overrides are written for; "
        f"pip install '{name}=={known}.*'"
        for name, known in _OVERRIDDEN.items()
        if not (found := version_of(name)).startswith(f"{known}.")
    ]
    if problems:
        raise InvalidRequest("; ".join(problems), problems)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """For the time of a run; the environment is set before the libraries are imported, which is when they read it."""
    os.environ.update(_ENVIRONMENT)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
