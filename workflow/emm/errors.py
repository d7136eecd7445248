"""Errors that end a command in one line, and the exit codes they carry."""

import contextlib
import sys
from collections.abc import Iterator

from emm.processes import rank

EXIT_BAD_INPUT = 2
EXIT_RESUMABLE = 75


class UserError(Exception):
    """Bad input: what is wrong, where, and what to do, in one line. Exit code 2."""

    exit_code = EXIT_BAD_INPUT


class Interrupted(Exception):  # noqa: N818 - an outcome, not an error
    """Work stopped with its state saved: the same command resumes it. Exit code 75."""

    exit_code = EXIT_RESUMABLE


@contextlib.contextmanager
def ending_in_a_line() -> Iterator[None]:
    """End the process with one line and the exit code of an error that carries one."""
    try:
        yield
    except (UserError, Interrupted) as error:
        if not rank():  # once for all that share the work
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
