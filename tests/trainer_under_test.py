"""A trainer that trains nothing: `python trainer_under_test.py DIRECTORY FENCE`, as `trainer.child` is called.

The recipe's name says what it does. Everything around it (files, order, words, result) is as with the real one.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from factories import make_adapter, make_training, sha

from registry.records import Base, StepProgress
from trainer.faults import Diverged, fault_of
from trainer.recipe import read_recipe
from trainer.workspace import Ended, Order, Told, Workspace, read_whole, write_whole

DATASET, LEDGER = b'{"use": "train"}', b"ledger of a trainer that trains nothing"


def main(root: Path, fence: int) -> None:
    place = Workspace(root)
    order, (recipe, text) = read_whole(place.order, Order), read_recipe(place.recipe)
    assert order is not None and place.data(recipe.data).is_file()
    print(f"{recipe.name} trains", flush=True)
    with place.told(fence).open("ab", buffering=0) as told:

        def tell(what: Told) -> None:
            told.write(msgspec.json.encode(what) + b"\n")

        tell(Told(message="training"))
        if recipe.name == "killed":
            os.kill(os.getpid(), 9)
        if recipe.name == "crashes":
            print("something is wrong: é", flush=True)
            os._exit(3)
        if recipe.name == "diverges":
            fault = fault_of(Diverged("the loss is nan"), "input_invalid")
            write_whole(place.ended(fence), Ended(error=fault.error, retry=fault.retry))
            return
        steps = 10_000 if recipe.name == "slow" else 5
        kept = root / "checkpoint"
        done = int(kept.read_text()) if kept.exists() else 0
        while done < steps:
            done += 1
            tell(Told(message="training", step=StepProgress(step=done, steps=steps, loss=1.0 / done)))
            time.sleep(0.01)
            now = read_whole(place.order, Order)
            if now is None or now.stop or now.fence != fence:
                kept.write_text(str(done))
                tell(Told(message=f"saved step {done}", step=StepProgress(step=done, steps=steps, checkpoint=True)))
                write_whole(place.ended(fence), Ended(stopped=True))
                return
    write_whole(place.ended(fence), Ended(directory=str(result(root, text, Path(order.base), recipe.name))))


def result(root: Path, text: str, base: Path, name: str) -> Path:
    """What a run leaves: an adapter with its record, or one that no registry takes."""
    from registry.client import describe_base

    folder = root / "result"
    (folder / "adapter").mkdir(parents=True)
    files = make_adapter(fill=sum(name.encode()) % 200)
    if name == "unservable":
        files["adapter_config.json"] = b"{}"
    for path, data in files.items():
        (folder / "adapter" / path).write_bytes(data)
    (folder / "dataset.jsonl").write_bytes(DATASET)
    (folder / "ledger.parquet").write_bytes(LEDGER)
    record = make_training(Base(id="b", digest=describe_base(base).digest), DATASET, LEDGER)
    (folder / "training.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(record, recipe=text)))
    assert record.dataset == "sha256:" + sha(DATASET)
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
