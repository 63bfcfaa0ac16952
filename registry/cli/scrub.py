"""tunegate scrub: read back what is stored."""

import click

from registry import settings
from registry.cli.console import GO, NO_GO, console, leave, show
from registry.cli.lines import follow
from registry.operations.scrub import Scrubbed, scrub

_MIB = 1024 * 1024


@click.command(name="scrub")
@click.option(
    "--rate", default=100, show_default=True, type=click.IntRange(min=1), help="At most so many MiB a second."
)
@click.option("--collect", is_flag=True, help="Delete blobs that nothing names; the service must not run.")
def scrub_command(rate: int, collect: bool) -> None:
    """Hash every stored blob again; works beside a running service. Exits 1 if one is damaged or missing."""
    with follow(console(), "scrub") as follower:
        follower.stage("reading back")
        found = scrub(
            settings.home(),
            settings.limits(),
            bytes_per_second=rate * _MIB,
            collect=collect,
            progress=lambda checked, of: follower.step(checked, of, {}),
        )
    show(found, "\n".join(_lines(found)))
    leave(GO if found.clean else NO_GO)


def _lines(found: Scrubbed) -> list[str]:
    lines = [f"{found.checked} blobs are whole ({found.size_bytes / _MIB:,.1f} MiB)"]
    for word, digests in (("damaged", found.damaged), ("missing", found.missing)):
        remedy = "send its bytes again, or restore them from a backup"
        lines += [f"[red]{word}[/] sha256:{one}; {remedy}" for one in digests]
    if found.stale_parts:
        lines.append(f"{found.stale_parts} uploads that nobody continued are deleted")
    left_over = f"{found.left_over} blobs that nothing names ({found.left_over_bytes / _MIB:,.1f} MiB)"
    if found.collected:
        lines.append(f"{left_over} are deleted")
    elif found.left_over:
        lines.append(f"{left_over} are left over; stop the service and scrub with --collect")
    if found.idle:
        lines.append(
            f"{found.idle} blobs ({found.idle_bytes / _MIB:,.1f} MiB) are of versions that were never completed, or of "
            "nothing; they stay, since the journal names them"
        )
    return lines


COMMANDS = (scrub_command,)
