"""One worker's tools: bases that it knows by content, their tokenizers and suites, and an engine that stays warm."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from evaluator.engine import Engine, EngineDied, Unfit
from evaluator.rendering import Renderer
from evaluator.suites import Loaded, load_suite
from evaluator.vllm_process import CONTEXT_TOKENS, EngineSettings, VllmProcess, WarmChild
from registry.client import Client, InvalidRequest, describe_base
from registry.records import Suite


class Workplace(NamedTuple):
    """Where results, adapters and logs are kept, and where base models are looked for."""

    cache: Path
    bases: Sequence[Path]


class FoundBase(NamedTuple):
    """A base on this machine; `tensors`: weight name to shape."""

    directory: Path
    tensors: dict[str, list[int]]


class Launcher(Protocol):
    """What engines come from."""

    def check(self) -> None:
        """What can be known before there is a job. Raises Unfit or EngineDied."""
        ...

    def prepare(self, log: Path) -> None:
        """Begin whatever does not depend on the settings, so that the next start is quicker."""
        ...

    def start(self, settings: EngineSettings, log: Path) -> Engine:
        """A running engine. Raises Unfit or EngineDied."""
        ...

    def close(self) -> None:
        """Undo what was prepared and not used."""
        ...


class ChildLauncher:
    """Engines as children of this process. A prepared child imports vLLM while suites are fetched and tokenised."""

    def __init__(self) -> None:
        self._warm: WarmChild | None = None

    def check(self) -> None:
        """Nothing: only starting one shows whether it starts."""

    def prepare(self, log: Path) -> None:
        if self._warm is None:
            self._warm = WarmChild(log)

    def start(self, settings: EngineSettings, log: Path) -> Engine:
        warm, self._warm = self._warm, None
        return VllmProcess(settings, log, warm)

    def close(self) -> None:
        if self._warm is not None:
            self._warm.close()
        self._warm = None


class ServerLauncher:
    """Engines that are connections to one running vLLM server, `http://host:port` or `unix:/path`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def check(self) -> None:
        from evaluator.vllm_server import check_server

        check_server(self._address)

    def prepare(self, log: Path) -> None:
        """Nothing: the server is up."""

    def start(self, settings: EngineSettings, log: Path) -> Engine:
        from evaluator.vllm_server import VllmServer

        return VllmServer(self._address, settings)

    def close(self) -> None:
        """Nothing was prepared."""


class Desk:
    """See above. `longest`: tokens that prompt and answer may have together."""

    longest = CONTEXT_TOKENS

    def __init__(self, place: Workplace, launcher: Launcher | None = None) -> None:
        self.place = place
        self._launcher = launcher if launcher is not None else ChildLauncher()
        self._bases: dict[str, FoundBase] = {}
        self._renderers: dict[str, Renderer] = {}
        self._suites: dict[tuple[str, str], Loaded] = {}
        self._engine: Engine | None = None
        self._settings: EngineSettings | None = None

    def check(self) -> None:
        """Whether jobs may be claimed at all. Raises Unfit or EngineDied where no engine could come of it."""
        self._launcher.check()

    def base(self, digest: str) -> FoundBase:
        """The base with this content. Raises Unfit if there is none here."""
        if digest not in self._bases:
            for folder in self.place.bases:
                for one in [folder, *sorted(folder.iterdir())] if folder.is_dir() else []:
                    with contextlib.suppress(InvalidRequest):
                        described = describe_base(one)
                        self._bases[described.digest] = FoundBase(one, described.tensors)
        if digest not in self._bases:
            searched = ", ".join(map(str, self.place.bases))
            raise Unfit(f"no base model with digest {digest} under {searched}; give its directory with --base")
        return self._bases[digest]

    def renderer(self, base: str) -> Renderer:
        """The tokenizer and template of the base with this digest."""
        if base not in self._renderers:
            self._renderers[base] = Renderer(self.base(base).directory)
        return self._renderers[base]

    def suite(self, client: Client, suite: Suite, base: str) -> Loaded:
        """A suite as the base with this digest reads it; tokenised once."""
        if (base, suite.ref) not in self._suites:
            directory = self.base(base).directory
            self._suites[base, suite.ref] = load_suite(client, suite, self.renderer(base), directory, self.longest)
        return self._suites[base, suite.ref]

    def prepare(self) -> None:
        """An engine will be wanted soon."""
        if self._engine is None:
            self._launcher.prepare(self._log)

    def engine(self, settings: EngineSettings) -> Engine:
        """A running engine with these settings; one with room for a larger rank does as well.

        Raises Unfit if none starts: whatever is asked of engines, they do not start for it.
        """
        kept = self._settings
        if kept is None or kept.rank < settings.rank or kept._replace(rank=settings.rank) != settings:
            if self._engine is not None:
                self.close()
            try:
                self._engine = self._launcher.start(settings, self._log)
            except EngineDied as error:
                raise Unfit(f"no engine starts: {error}") from None
            self._settings = settings
        assert self._engine is not None
        return self._engine

    def close(self) -> None:
        """End the engine, and one that was prepared."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._settings = None
        self._launcher.close()

    @property
    def _log(self) -> Path:
        return self.place.cache / "logs" / f"engine-{os.getpid()}.log"
