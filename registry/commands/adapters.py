"""Suites, adapters and their policies."""

from collections.abc import Sequence

from registry.access import require_sight
from registry.commands.conditions import matches
from registry.commands.context import Context, Outcome
from registry.errors import AlreadyExists, Forbidden, InvalidRequest, NotFound, PreconditionFailed, TooLarge
from registry.events import AdapterCreated, AnyEvent, PolicySet, SuiteRegistered
from registry.gate.policy import check_policy, pin, policy_digest
from registry.names import check_adapter_name
from registry.records import (
    AdapterInfo,
    CreateAdapter,
    FileEntry,
    Policy,
    PolicyInfo,
    RegisterSuite,
    Suite,
    manifest_digest,
)
from registry.storage.views import StoredAdapter, View
from registry.suites import GOLD_FILE, SUITE_FILES, check_suite


def register_suite(context: Context, request: RegisterSuite) -> Outcome:
    """Register a suite whose two files are stored; the same content again is the same suite.

    Suites are everyone's: the newest of a name goes into the next policy of any team that names it.
    """
    if context.principal.scope is not None:
        raise Forbidden(f"this token is limited to {context.principal.scope!r}, and suites are shared by all adapters")
    blobs = context.services.blobs
    paths = {file.path: file for file in request.files}
    if set(paths) - {GOLD_FILE} != set(SUITE_FILES):
        files_of = f"{', '.join(SUITE_FILES)}, and {GOLD_FILE} if it has gold items"
        raise InvalidRequest(f"a suite has exactly the files {files_of}, not {', '.join(sorted(paths))}")
    if missing := [file.path for file in request.files if not blobs.has(file.sha256)]:
        raise InvalidRequest(f"upload {', '.join(missing)} first with PUT /v1/blobs/sha256:…")
    try:
        content = {path: blobs.read(file.sha256) for path, file in paths.items()}
    except TooLarge as error:
        raise InvalidRequest(f"suite {request.name!r} is too large: {error}") from None
    facts = check_suite(request.name, content)._asdict()
    files = [FileEntry(path=path, size=len(content[path]), sha256=paths[path].sha256) for path in sorted(paths)]
    digest = manifest_digest(files)
    suite = Suite(name=request.name, digest=digest, files=files, **facts)
    if suite.ref in context.view.suites():
        return Outcome(suite)
    event = SuiteRegistered(name=suite.name, digest=digest, files=files, **facts)
    return Outcome(suite, [event], 201)


def create(context: Context, request: CreateAdapter) -> Outcome:
    """Create an adapter under a policy: the given one, or the default."""
    check_adapter_name(request.name)
    require_sight(context.principal, request.name)
    if context.view.adapter(request.name):
        raise AlreadyExists(f"adapter {request.name!r} already exists; change its policy with `tunegate policy set`")
    pinned = pin(check_policy(request.policy or Policy()), context.view.suites())
    digest = policy_digest(pinned)
    tensors = {name: list(shape) for name, shape in request.base_tensors.items()} if request.base_tensors else None
    events: list[AnyEvent] = [
        AdapterCreated(name=request.name, base=request.base, base_tensors=tensors),
        PolicySet(adapter=request.name, revision=1, digest=digest, document=pinned),
    ]
    info = AdapterInfo(
        name=request.name, base=request.base, policy=digest, created_at=context.now, versions=0, aliases={}
    )
    return Outcome(info, events, 201)


def set_policy(context: Context, adapter: str, policy: Policy, if_match: str | None) -> Outcome:
    """A new policy revision for versions completed from now on; versions already sealed keep theirs."""
    stored = find_adapter(context, adapter)
    if not matches(if_match, stored.policy):
        raise PreconditionFailed(f"the policy is now {stored.policy}; read it and decide again", stored.policy)
    pinned = pin(check_policy(policy), context.view.suites())
    digest = policy_digest(pinned)
    revision = stored.revision + (digest != stored.policy)
    info = PolicyInfo(adapter=adapter, digest=digest, revision=revision, document=pinned)
    if digest == stored.policy:
        return Outcome(info)
    return Outcome(info, [PolicySet(adapter=adapter, revision=revision, digest=digest, document=pinned)])


def find_adapter(context: Context, adapter: str) -> StoredAdapter:
    require_sight(context.principal, adapter)
    if (stored := context.view.adapter(adapter)) is None:
        raise NotFound(f"adapter {adapter!r} does not exist or is not visible to this token")
    return stored


def describe(view: View, stored: StoredAdapter) -> AdapterInfo:
    return describe_all(view, [stored])[0]


def describe_all(view: View, found: Sequence[StoredAdapter]) -> list[AdapterInfo]:
    """Several adapters at the cost of one."""
    names = [stored.name for stored in found]
    numbers, aliases = view.last_numbers(names), view.aliases_of(names)
    return [
        AdapterInfo(
            name=stored.name,
            base=stored.base,
            policy=stored.policy,
            created_at=stored.created_at,
            versions=numbers.get(stored.name, 0),
            aliases=aliases.get(stored.name, {}),
        )
        for stored in found
    ]
