"""The fake engine and the contract are imported by name from here and from tests/end_to_end."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
