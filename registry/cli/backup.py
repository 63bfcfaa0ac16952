"""tunegate backup, restore: a home's truth in another directory, and a home made from it."""

from pathlib import Path

import click
from rich.markup import escape

from registry import settings
from registry.cli.console import GO, NO_GO, console, leave, show
from registry.cli.lines import Follower, follow
from registry.operations.backup import Manifest, Report, back_up, restore

Directory = click.Path(path_type=Path, file_okay=False)


@click.command(name="backup")
@click.option("--to", "target", required=True, type=Directory, help="A new directory, or that of the last backup.")
@click.option("--without-keys", is_flag=True, help="Leave out the private keys; restore them from elsewhere then.")
def backup_command(target: Path, without_keys: bool) -> None:
    """Back up TUNEGATE_HOME; works beside a running service, and copies only what is new."""
    home = settings.home()
    with follow(console(), "backup") as follower:
        done = back_up(home, target, with_keys=not without_keys, report=_reporting(follower))
    manifest = done.manifest
    lines = [f"{manifest.seq} entries are in {escape(str(target))}, and {done.new_blobs} blobs more than before"]
    if manifest.keys:
        lines.append(
            "[bold yellow]It holds the private keys[/]: who reads it can sign approvals. Keep it as secret as the "
            "home, or use --without-keys"
        )
    else:
        lines.append(
            f"It holds no keys: keep {escape(str(home.signing_key.parent))} elsewhere, or approvals end with it"
        )
    show(
        {
            "seq": manifest.seq,
            "hash": manifest.hash,
            "new_blobs": done.new_blobs,
            "new_bytes": done.new_bytes,
            "keys": sorted(manifest.keys),
            "absent": manifest.absent,
            "lost": manifest.lost,
        },
        "\n".join([*lines, *_lost(manifest)]),
    )
    leave(NO_GO if manifest.lost else GO)


@click.command(name="restore")
@click.option("--from", "source", required=True, type=Directory, help="What `tunegate backup` wrote.")
def restore_command(source: Path) -> None:
    """Make TUNEGATE_HOME, which must be empty, of a backup; nothing is there until all of it was found whole."""
    home = settings.home()
    with follow(console(), "restore") as follower:
        manifest = restore(source, home, report=_reporting(follower))
    lines = [f"{manifest.seq} entries are in {escape(str(home.root))}; start it with `tunegate serve`"]
    if not manifest.keys:
        lines.append(
            f"The backup holds no keys: put them into {escape(str(home.signing_key.parent))} before you start it"
        )
    show(
        {"seq": manifest.seq, "hash": manifest.hash, "keys": sorted(manifest.keys), "lost": manifest.lost},
        "\n".join([*lines, *_lost(manifest)]),
    )
    leave(NO_GO if manifest.lost else GO)


def _reporting(follower: Follower) -> Report:
    def report(done: int, total: int) -> None:
        if done == 1:
            follower.stage("checking and copying blobs")
        follower.step(done, total, {})

    return report


def _lost(manifest: Manifest) -> list[str]:
    return [
        f"[red]lost[/]: blob sha256:{sha256} was missing or damaged; send its bytes again" for sha256 in manifest.lost
    ]


COMMANDS = (backup_command, restore_command)
