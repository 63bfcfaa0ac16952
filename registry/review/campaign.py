"""What is shown to whom: drawing the outputs, ordering them for each person, binding them by hash. Pure.

The draw depends on a secret of the registry whose hash opened the journal, so that nobody who submits can choose which
outputs are seen, and an auditor who is shown the secret can repeat it. Beside the candidate's outputs stand others that
test the reviewers and the scale; nothing that a reviewer sees tells them apart.
"""

import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from registry.audit.merkle import Frontier, leaf_hash
from registry.events import CampaignItem
from registry.names import digest_of, sha256_hex
from registry.records import CRITERIA, Bounds, ItemKind, ReviewRule

# A duplicate is met so many items after its first showing, or later.
APART = 10
# Spares for each output: of a person's items, a tenth may be skipped, and a fifth rated too fast to be counted.
_SPARES = 0.3
SKIP_SHARE = 10


class Output(NamedTuple):
    """An answer that can be shown: that of `subject` in version `number` to item `source` of a suite, by its tag.

    expect: how it is to be rated, where that is known.
    """

    suite: str
    source: str
    prompt: str
    output: str
    tag: str = ""
    subject: str = "candidate"
    number: int | None = None
    expect: dict[str, Bounds] | None = None

    @property
    def name(self) -> str:
        """What it is called in its campaign, and in every rating."""
        return f"{self.suite.partition('@')[0]}/{self.source}"


class Material(NamedTuple):
    """What a campaign is drawn from: the candidate's answers to the review suite and, if they are texts, to the
    accuracy suite; others' answers to the same items, by suite and item; and answers of known quality."""

    review: Sequence[Output]
    accuracy: Sequence[Output]
    controls: Mapping[tuple[str, str], Output]
    gold: Sequence[Output]


# -- drawing ------------------------------------------------------------------------------------------------------


class Binding(NamedTuple):
    """What an item's hash binds it to, beside its texts."""

    manifest: str
    evidence: str
    campaign: str


def compose(rule: ReviewRule, material: Material, secret: bytes, manifest: str, to: Binding) -> list[CampaignItem]:
    """All items of a campaign: what is to be rated, spares, then controls, gold items and duplicates.

    manifest: the digest that seeds the draw, equal for equal weights.
    """
    core, spares = draw_outputs(rule, material, secret, manifest)
    comparable = [one for one in core if (one.suite, one.source) in material.controls]
    compared = _some(comparable, rule.controls, secret, manifest, "controls")
    controls = [material.controls[one.suite, one.source] for one in compared]
    gold = _gold(material.gold, rule.gold, secret, manifest)
    room = _room_for_duplicates(rule, len(core), len(controls) + len(gold))
    doubled = _some([one for one in core if one not in compared], room, secret, manifest, "duplicates")
    kinds = (
        (ItemKind.CANDIDATE, [*core, *spares]),
        (ItemKind.CONTROL, controls),
        (ItemKind.GOLD, gold),
        (ItemKind.DUPLICATE, doubled),
    )
    return [_bound(kind, one, to, secret) for kind, outputs in kinds for one in outputs]


def _gold(gold: Sequence[Output], n: int, secret: bytes, manifest: str) -> list[Output]:
    """`n` of the answers of known quality, with one among them that no high score passes, wherever there is one."""
    order = _some(gold, len(gold), secret, manifest, "gold")
    found, low = order[:n], [one for one in order if one.expect is not None and must_be_low(one.expect)]
    if found and low and not any(one in low for one in found):
        found[-1] = low[0]
    return found


def draw_outputs(
    rule: ReviewRule, material: Material, secret: bytes, manifest: str
) -> tuple[list[Output], list[Output]]:
    """The outputs to rate, and spares; the accuracy suite gives its share of both, as far as both suites reach."""
    pools = [list(material.review), list(material.accuracy)]
    core = _from_both(pools, drawn(rule), rule.from_accuracy, secret, manifest)
    taken = {one.name for one in core}
    rest = [[one for one in pool if one.name not in taken] for pool in pools]
    return core, _from_both(rest, math.ceil(_SPARES * len(core)), rule.from_accuracy, secret, manifest)


def shared_out(rule: ReviewRule) -> bool:
    """Whether each output is rated by some of the people only."""
    return rule.ratings_per_output is not None and rule.ratings_per_output < rule.reviewers


def drawn(rule: ReviewRule) -> int:
    """How many outputs are rated in all: more than each person rates, where not everyone rates everything.

    Never so many that one must go short of ratings, though everyone rates those that are shown twice.
    """
    if rule.ratings_per_output is None or not shared_out(rule):
        return rule.outputs
    everyone = min(rule.duplicates, rule.outputs)
    return everyone + (rule.outputs - everyone) * rule.reviewers // rule.ratings_per_output


def _from_both(pools: Sequence[list[Output]], n: int, share: float, secret: bytes, manifest: str) -> list[Output]:
    review, accuracy = pools
    second = min(round(share * n), len(accuracy))
    first = min(n - second, len(review))
    second = min(n - first, len(accuracy))
    found = stratified(review, first, secret, manifest) + stratified(accuracy, second, secret, manifest)
    return _some(found, len(found), secret, manifest, "order")


def stratified(outputs: Sequence[Output], n: int, secret: bytes, manifest: str) -> list[Output]:
    """`n` of the outputs, from each tag its share by largest remainder; of equal remainders the larger tag's first."""
    strata: dict[str, list[Output]] = {}
    for one in outputs:
        strata.setdefault(one.tag, []).append(one)
    n = min(n, len(outputs))
    quotas = {tag: n * len(of_tag) // len(outputs) for tag, of_tag in strata.items()}
    by_remainder = sorted(strata, key=lambda tag: (-(n * len(strata[tag]) % len(outputs)), -len(strata[tag]), tag))
    for tag in by_remainder[: n - sum(quotas.values())]:
        quotas[tag] += 1
    return [one for tag in sorted(strata) for one in _some(strata[tag], quotas[tag], secret, manifest, "outputs")]


def draw(items: Iterable[str], n: int, secret: bytes, manifest: str, purpose: str) -> list[str]:
    """`n` of the items, the same for the same secret, manifest and purpose; all of them where there are fewer."""
    seed = hmac.new(secret, f"draw {manifest} {purpose}".encode(), hashlib.sha256).digest()
    return _shuffled(items, seed)[:n]


def _some(outputs: Iterable[Output], n: int, secret: bytes, manifest: str, purpose: str) -> list[Output]:
    by_name = {one.name: one for one in outputs}
    return [by_name[name] for name in draw(by_name, n, secret, manifest, purpose)]


def _bound(kind: ItemKind, one: Output, to: Binding, secret: bytes) -> CampaignItem:
    item = one.name if kind is ItemKind.CANDIDATE else f"{one.name}#{kind.value}"
    salt = item_salt(item, secret, to.campaign)
    return CampaignItem(
        item=item,
        hash=item_hash(to.manifest, to.evidence, item, one.prompt, one.output, salt),
        salt=salt,
        kind=kind,
        suite=one.suite,
        source=one.source,
        subject=one.subject,
        number=one.number,
        words=len(one.prompt.split()) + len(one.output.split()),
        expect=one.expect,
    )


def prompt_of(item: str, kind: ItemKind) -> str:
    """The name under which an item's ratings are compared: a control and a duplicate bear their candidate's."""
    return item.removesuffix(f"#{kind.value}") if kind in (ItemKind.CONTROL, ItemKind.DUPLICATE) else item


# -- binding ------------------------------------------------------------------------------------------------------


def item_hash(manifest: str, evidence: str, item: str, prompt: str, output: str, salt: str = "") -> str:
    """Binds a rating to the very bytes that were shown and to the run that made them.

    salt: without it, who knows a suite could tell from the hash of what kind an item is. None in older campaigns.
    """
    said = {"manifest": manifest, "evidence": evidence, "item": item, "prompt": prompt, "output": output}
    return digest_of({**said, "salt": salt} if salt else said).removeprefix("sha256:")


def item_salt(item: str, secret: bytes, campaign: str) -> str:
    """As good as random to whoever has not the secret; the journal has it, so that hashes can be checked."""
    return hmac.new(secret, f"salt {campaign}\0{item}".encode(), hashlib.sha256).hexdigest()[:32]


def root(hashes: Iterable[str]) -> str:
    """Of the Merkle tree over these texts, in this order (see `registry.audit.merkle`)."""
    tree = Frontier()
    for one in hashes:
        tree.append(leaf_hash(one.encode()))
    return f"sha256:{tree.root().hex()}"


def campaign_id(adapter: str, manifest: str, policy: str) -> str:
    """One campaign for a manifest of an adapter under a policy: submitting the same bytes again cannot draw anew."""
    return sha256_hex(f"campaign {adapter} {manifest} {policy}".encode())[:32]


def assignment_id(person: str, item: str, secret: bytes, campaign: str) -> str:
    """Opaque to whoever has not the secret: names neither item nor campaign nor person."""
    # NUL stands in no person's name, so that 'ada b' rating 'c' is never 'ada' rating 'b c'.
    return hmac.new(secret, f"assignment {campaign}\0{person}\0{item}".encode(), hashlib.sha256).hexdigest()[:32]


def dispute_id(item: str, secret: bytes, campaign: str) -> str:
    """As opaque as an assignment's; the same for every expert who looks."""
    return hmac.new(secret, f"dispute {campaign}\0{item}".encode(), hashlib.sha256).hexdigest()[:32]


# -- one person's order -------------------------------------------------------------------------------------------


class Items(NamedTuple):
    """A campaign's items by name, as each person meets them.

    core: outputs to rate, of which each person rates `outputs`; shared_out: not everyone the same ones. doubled: each
    duplicate with the output that it shows a second time. others: controls and gold items.
    """

    core: tuple[str, ...]
    spares: tuple[str, ...]
    others: tuple[str, ...]
    doubled: tuple[tuple[str, str], ...]
    outputs: int
    shared_out: bool = False

    @classmethod
    def of(cls, rule: ReviewRule, kinds: Mapping[str, ItemKind]) -> "Items":
        """kinds: of every item, in the order in which they were drawn."""
        candidates = [item for item, kind in kinds.items() if kind is ItemKind.CANDIDATE]
        n = drawn(rule)
        return cls(
            core=tuple(candidates[:n]),
            spares=tuple(candidates[n:]),
            others=tuple(item for item, kind in kinds.items() if kind in (ItemKind.CONTROL, ItemKind.GOLD)),
            doubled=tuple((item, prompt_of(item, kind)) for item, kind in kinds.items() if kind is ItemKind.DUPLICATE),
            outputs=min(rule.outputs, n, len(candidates)),
            shared_out=shared_out(rule),
        )

    @property
    def total(self) -> int:
        """How many items a person rates who skips none and reads them all."""
        return self.outputs + len(self.others) + len(self.doubled)


class Shared(NamedTuple):
    """How outputs that are shared out stand. met: by how many others each was met. short: those that lack ratings
    though as many people as are needed have rated their part."""

    met: Mapping[str, int] = {}
    short: Sequence[str] = ()


def next_item(
    person: str, items: Items, seen: Sequence[str], wanting: int, shared: Shared, secret: bytes, campaign: str
) -> str | None:
    """The item that this person meets after those they have `seen`; None where they are through.

    wanting: how many outputs they still have to rate beside those that they have before them.
    """
    known = set(seen)
    if len(seen) < items.total:
        fixed, ordered = _way(person, items, secret, campaign)
        if (here := fixed.get(len(seen))) is not None and here not in known:
            return here
        free = [one for one in ordered if one not in known]
        if free:
            return min(free, key=lambda one: shared.met.get(one, 0)) if items.shared_out else free[0]
    more = order_for(person, shared.short, secret, campaign)
    if wanting > 0:
        if items.shared_out:
            # A spare that nobody else rates would decide nothing.
            more += sorted(order_for(person, items.core, secret, campaign), key=lambda one: shared.met.get(one, 0))
        more += order_for(person, items.spares, secret, campaign)
    return next((one for one in more if one not in known), None)


@lru_cache(maxsize=1024)
def _way(person: str, items: Items, secret: bytes, campaign: str) -> tuple[dict[int, str], list[str]]:
    """What stands at fixed places on a person's way, and the order of everything that does not."""
    fixed = schedule(person, items, secret, campaign)
    kept = set(fixed.values())
    return fixed, [one for one in order_for(person, items.core, secret, campaign) if one not in kept]


def schedule(person: str, items: Items, secret: bytes, campaign: str) -> dict[int, str]:
    """At which place, from 0, a person meets what is no ordinary output: spread evenly, at random within each stretch.

    A duplicate comes in the second half, and its output so early that `APART` or more others stand between them.
    """
    seed = hmac.new(secret, f"places {campaign} {person}".encode(), hashlib.sha256).digest()
    total, half = items.total, items.total // 2
    places: dict[int, str] = {}

    def put(item: str, start: int, end: int) -> None:
        free = [place for place in range(start, end) if place not in places]
        free = free or [place for place in range(total) if place not in places]
        places[int(_shuffled(map(str, free), seed)[0])] = item

    for stretches, start, end in (
        (_shuffled((again for again, _ in items.doubled), seed), half, total),
        (_shuffled((first for _, first in items.doubled), seed), 0, half - APART + 1),
        (_shuffled(items.others, seed), 0, total),
    ):
        for i, item in enumerate(stretches):
            width = end - start
            put(item, start + i * width // len(stretches), start + (i + 1) * width // len(stretches))
    return places


def order_for(person: str, items: Iterable[str], secret: bytes, campaign: str) -> list[str]:
    """The order in which one person sees the items: each their own, so that position effects average out."""
    return _shuffled(items, hmac.new(secret, f"order {campaign} {person}".encode(), hashlib.sha256).digest())


def most_skips(total: int) -> int:
    """How many of so many items a person may leave to others: a tenth, and always one."""
    return max(1, total // SKIP_SHARE)


def gold_passed(expect: Mapping[str, Bounds], scores: Mapping[str, int]) -> bool:
    """Whether a gold item was rated as it is known to deserve."""
    return all(bounds.min <= scores[criterion] <= bounds.max for criterion, bounds in expect.items())


def must_be_low(expect: Mapping[str, Bounds]) -> bool:
    """Whether a gold item fails who gives the best scores to everything."""
    return not gold_passed(expect, dict.fromkeys(CRITERIA, 5))


def _room_for_duplicates(rule: ReviewRule, outputs: int, others: int) -> int:
    """How many duplicates can be shown far enough from their first showing; none in a short campaign."""
    n = min(rule.outputs, outputs)
    fits = [d for d in range(rule.duplicates + 1) if d <= max(0, (n + others + d) // 2 - APART + 1)]
    return max(fits)


def _shuffled(items: Iterable[str], seed: bytes) -> list[str]:
    return sorted(items, key=lambda item: hmac.digest(seed, item.encode(), "sha256"))
