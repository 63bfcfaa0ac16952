"""Which modules are searched for examples: those that have some. To import the others, torch included, takes long."""

from pathlib import Path

_ROOT = Path(__file__).parent
collect_ignore = [
    str(path)
    for package in ("registry", "trainer", "evaluator")
    for path in (_ROOT / package).rglob("*.py")
    if ">>>" not in path.read_text()
]
