"""What this machine has to train with: a GPU or not, how much memory, how fast."""

import os
import time
from pathlib import Path

_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_LOOK_SECONDS = 0.5


def has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def memory_bytes() -> int:
    """All the memory of the GPU, or where there is none of the machine, or of the part of it that is given to us."""
    if has_gpu():
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _GROUP_LIMITS:
        text = file.read_text().strip() if file.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def flops_per_second() -> float:
    """What products of large bfloat16 matrices reach here and now, the best of half a second; other load lowers it."""
    import torch

    device = "cuda" if has_gpu() else "cpu"
    rows, columns = (8192, 8192) if device == "cuda" else (512, 2048)
    left, right = (torch.randn(size, columns, device=device).to(torch.bfloat16) for size in (rows, columns))
    best, until = 0.0, time.monotonic() + _LOOK_SECONDS
    while best == 0.0 or time.monotonic() < until:
        started = time.monotonic()
        (left @ right).sum().item()
        best = max(best, 2.0 * rows * columns * columns / (time.monotonic() - started))
    return best
