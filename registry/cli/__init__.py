"""The command line: `tunegate …`. Commands that train or evaluate are loaded only when they are called."""

import os
import sys
from collections.abc import Sequence

import click
from rich.markup import escape

from registry import __version__, settings
from registry.cli import (
    adapters,
    audit,
    backup,
    data,
    decisions,
    erase,
    keys,
    publishers,
    pulling,
    review,
    reviewers,
    scrub,
    server,
    suites,
    tokens,
    trainings,
    webhooks,
    work,
)
from registry.cli.console import UNKNOWN, Options, errors, explain
from registry.errors import TunegateError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tunegate")
@click.option("--url", envvar="TUNEGATE_URL", default=settings.url, help="Address of the registry.")
@click.option("--token", envvar="TUNEGATE_TOKEN", help="Token to act with.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout, people's text on stderr.")
@click.pass_context
def cli(context: click.Context, url: str, token: str | None, as_json: bool) -> None:
    """The evaluation-gated registry for LoRA/QLoRA adapters.

    Exit codes: 0 go or done, 1 no_go or invalid, 2 inconclusive or pending, 3 could not be determined.
    """
    context.obj = Options(url, token, as_json)


for module in (
    server,
    tokens,
    webhooks,
    publishers,
    reviewers,
    erase,
    suites,
    adapters,
    pulling,
    decisions,
    review,
    work,
    trainings,
    data,
    keys,
    audit,
    backup,
    scrub,
):
    for command in module.COMMANDS:
        cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; whatever goes wrong is one message and exit code 3, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--json" in given:  # accepted anywhere: people write it last
        given = ["--json", *(one for one in given if one != "--json")]
    try:
        cli.main(args=given, prog_name="tunegate", standalone_mode=False)
    except TunegateError as error:
        explain(error)
        sys.exit(UNKNOWN)
    except click.ClickException as error:
        error.show()
        sys.exit(UNKNOWN)
    except (click.Abort, KeyboardInterrupt):
        errors.print("stopped")
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away (`| head`): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNKNOWN)
    except OSError as error:
        if os.environ.get("TUNEGATE_DEBUG"):
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        errors.print(f"[bold red]error:[/] {escape(what)}; check the path, its permissions and the space left")
        sys.exit(UNKNOWN)
    except Exception as error:
        if os.environ.get("TUNEGATE_DEBUG"):
            raise
        errors.print(f"[bold red]error:[/] {type(error).__name__}: {escape(str(error))}")
        errors.print("this is a defect of tunegate; TUNEGATE_DEBUG=1 shows where")
        sys.exit(UNKNOWN)
