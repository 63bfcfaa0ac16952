"""The engine's contract lies beside the fake engine."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "evaluator"))
