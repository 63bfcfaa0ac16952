"""Fifty people who review at once against a real `tunegate serve`: how long the server takes to save a rating.

    python -m benchmarks.review_load [--people 50] [--think 1.0]

Ten campaigns of the default size (50 outputs and five others) with five reviewers each. Everyone asks for an item,
thinks for a while, at random up to twice the mean, and saves. Times are taken by the client on the same machine, from
the first byte sent to the last one received, over a kept-alive connection. Each campaign is sealed by its fifth person.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import registry_homes
from benchmarks.load import Connection, quantile
from benchmarks.served import served
from registry.commands import adapters, jobs, tokens, versions
from registry.records import CreateAdapter, CreateToken, Policy, RegisterSuite, ReviewRule, Role
from registry.settings import Home

sys.path.insert(0, str(registry_homes.ROOT / "tests"))
from factories import BASE, BASE_TENSORS, SIZES, SUITES, entry_of, make_adapter, make_gold, make_suite
from registry_under_test import ADMIN, CI, EVALUATOR, Bench, bench_in, submission
from site_under_test import DATASET, KINDS, LEDGER

_EACH = 5
_SCORES = {"clarity": 5, "relevance": 5, "safety": 5, "accuracy": 5, "hallucination": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--think", type=float, default=1.0, help="mean seconds between an item and its rating")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tunegate-bench-") as folder:
        home = Home(Path(folder) / "home")
        people = _prepared(home, -(-asked.people // _EACH))[: asked.people]
        with served(home) as server:
            began = time.perf_counter()
            saves, asks = asyncio.run(_all(server.url, people, asked.think))
            seconds = time.perf_counter() - began
    print(f"{len(people)} people, {len(saves)} ratings in {seconds:.0f} s, {asked.think:g} s between item and rating")
    for name, taken in (("save a rating", saves), ("ask for an item", asks)):
        p50, p99, most = (quantile(taken, share) * 1000 for share in (0.5, 0.99, 1.0))
        print(f"  {name:16} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   most {most:6.1f} ms")


async def _all(url: str, people: list[str], think: float) -> tuple[list[float], list[float]]:
    saves: list[float] = []
    asks: list[float] = []
    await asyncio.gather(*(_one(url, token, think, saves, asks) for token in people))
    return saves, asks


async def _one(url: str, token: str, think: float, saves: list[float], asks: list[float]) -> None:
    """One person rates until nothing is left."""
    source = random.Random(token)
    async with Connection(url, {"Authorization": f"Bearer {token}"}) as connection:
        while True:
            start = time.perf_counter()
            status, item = await connection.send("GET", "/v1/review/next")
            asks.append(time.perf_counter() - start)
            if status == 204:
                return
            await asyncio.sleep(source.uniform(0, 2 * think))
            # Gold items of these suites harm whoever follows them.
            scores = {**_SCORES, "safety": 1 if "DANGER" in item["output"] else 5, "hash": item["hash"]}
            start = time.perf_counter()
            status, said = await connection.send("POST", f"/v1/review/assignments/{item['id']}/rating", scores)
            saves.append(time.perf_counter() - start)
            if status >= 300:
                raise SystemExit(f"a rating was refused: {status} {said}")


def _prepared(home: Home, campaigns: int) -> list[str]:
    """Campaigns of adapters of their own in a home, and the tokens of five reviewers for each."""
    with bench_in(home.root) as bench:
        for section, suite in SUITES.items():
            files = make_suite(suite, KINDS[section], SIZES[section])
            if section == "review":
                files["gold.jsonl"] = make_gold(4)
            for data in files.values():
                bench.registry.blobs.put(data)
            request = RegisterSuite(name=suite, files=[entry_of(path, data) for path, data in files.items()])
            bench.run(ADMIN, adapters.register_suite, request=request)
        return [token for n in range(campaigns) for token in _in_review(bench, f"team-{n}/bot", n + 1)]


def _in_review(bench: Bench, name: str, fill: int) -> list[str]:
    policy = Policy(review=ReviewRule(reviewers=_EACH, min_seconds=0.0))
    request = CreateAdapter(name=name, base=BASE, base_tensors=BASE_TENSORS, policy=policy)
    bench.run(ADMIN, adapters.create, request=request)
    for data in (*make_adapter(fill=fill).values(), DATASET, LEDGER):
        bench.registry.blobs.put(data)
    bench.run(CI, versions.submit, adapter=name, request=submission(fill))
    bench.run(CI, versions.complete, adapter=name, number=1)
    job = bench.claim()
    assert job is not None
    measured = bench.measured(job, base_outputs=SIZES["review"])
    bench.registry.execute(EVALUATOR, partial(jobs.record_evidence, job_id=job.id, request=measured))
    asked = [CreateToken(role=Role.REVIEWER, person=f"{name} {n}", scope=name) for n in range(_EACH)]
    return [str(bench.run(ADMIN, tokens.create, request=one).value.secret) for one in asked]


if __name__ == "__main__":
    main()
