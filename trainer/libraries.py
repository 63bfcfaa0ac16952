"""The training libraries, kept quiet: no telemetry, no network beyond what is asked for, no progress bars but ours."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "BITSANDBYTES_NOWELCOME": "1",
}


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
