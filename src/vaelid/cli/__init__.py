"""The command line: ``vaelid COMMAND …``. Exit codes: 0 done, 1 failed in the middle, 2 wrong input, 130 interrupted."""

from __future__ import annotations

import errno
import sys

import typer

from vaelid.cli import inspect, train, use
from vaelid.cli.output import complain
from vaelid.errors import InputError, Interrupted, RunError, nearest

app = typer.Typer(
    name="vaelid",
    help="Variational autoencoders whose numbers hold. Start with: vaelid train digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (train.train, use.evaluate, use.encode, use.reconstruct, use.sample, inspect.report, inspect.info,
                inspect.compare):
    app.command()(command)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; errors become one line on stderr."""
    try:
        code = app(arguments, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except InputError as error:
        return complain(str(error), 2)
    except typer.TyperException as error:
        return complain(error.format_message(), 2)
    except RunError as error:
        return complain(str(error), 1)
    except (Interrupted, KeyboardInterrupt, typer.Abort) as error:
        return complain(str(error) or "interrupted", 130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return complain(f"the disk is full ({error.filename or 'while writing'}); free some space and try again", 1)
        raise


__all__ = ["app", "main", "nearest"]

if __name__ == "__main__":
    sys.exit(main())
