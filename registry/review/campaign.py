"""Who rates what: drawing the outputs, ordering them for each person, binding them by hash. Pure.

The draw depends on a secret of the registry whose hash opened the journal, so that nobody who submits can choose which
outputs are seen, and an auditor who is shown the secret can repeat it.
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Sequence

from registry.names import digest_of, sha256_hex

MOST_REVIEWERS = 5


def draw(items: Iterable[str], n: int, secret: bytes, manifest: str, suite: str) -> list[str]:
    """`n` of the items, the same for the same secret, manifest digest and suite; all of them where there are fewer."""
    seed = hmac.new(secret, f"draw {manifest} {suite}".encode(), hashlib.sha256).digest()
    return _shuffled(items, seed)[:n]


def order_for(person: str, items: Iterable[str], secret: bytes, campaign: str) -> list[str]:
    """The order in which one person sees the items: each their own, so that position effects average out."""
    return _shuffled(items, hmac.new(secret, f"order {campaign} {person}".encode(), hashlib.sha256).digest())


def assignment_id(person: str, item: str, secret: bytes, campaign: str) -> str:
    """Opaque to whoever has not the secret: names neither item nor campaign nor person."""
    # NUL stands in no person's name, so that 'ada b' rating 'c' is never 'ada' rating 'b c'.
    return hmac.new(secret, f"assignment {campaign}\0{person}\0{item}".encode(), hashlib.sha256).hexdigest()[:32]


def item_hash(manifest: str, evidence: str, item: str, prompt: str, output: str) -> str:
    """Binds a rating to the very bytes that were shown and to the run that made them."""
    return digest_of(
        {"manifest": manifest, "evidence": evidence, "item": item, "prompt": prompt, "output": output}
    ).removeprefix("sha256:")


def root(hashes: Sequence[str]) -> str:
    return digest_of(list(hashes))


def campaign_id(adapter: str, manifest: str, policy: str) -> str:
    """One campaign for a manifest of an adapter under a policy: submitting the same bytes again cannot draw anew."""
    return sha256_hex(f"campaign {adapter} {manifest} {policy}".encode())[:32]


def why_not_review(person: str, submitter: str, finished: Collection[str]) -> str | None:
    """The reason why this person may not join, or None. `finished`: who has rated all that was asked."""
    if person == submitter:
        return "whoever submitted a version cannot review it"
    if person not in finished and len(finished) >= MOST_REVIEWERS:
        return f"{MOST_REVIEWERS} people have reviewed it already"
    return None


def _shuffled(items: Iterable[str], seed: bytes) -> list[str]:
    return sorted(items, key=lambda item: hmac.new(seed, item.encode(), hashlib.sha256).digest())
