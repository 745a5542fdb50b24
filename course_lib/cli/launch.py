"""`course launch`: a script on several processes of this machine, as torchrun starts it; ended together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes
DEFAULT = "course_lib.parallel"  # the module that is run where no script is given
ARGUMENTS = "[OPTIONS] [SCRIPT] [ARGS]..."
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


class ScriptLast(TyperCommand):
    """A command whose options end where the script begins: what follows ``-m MODULE`` is the module's."""

    def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:
        """Put "--" after the module's name, then parse as ever."""
        takes_value = {name for option in self.params for name in option.opts if name != "-m"}
        place = 0
        while place < len(args) and args[place] in takes_value | {"-m"}:
            if args[place] == "-m" and place + 1 < len(args):
                args = [*args[:place + 2], "--", *args[place + 2:]]
                break
            place += 2
        return super().parse_args(context, args)


def launch(
    context: typer.Context,
    ranks: Annotated[int, typer.Option(help="How many processes, 1 to 64.")] = 2,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Longest time that the run may take; inf: any.")
    ] = 600.0,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", show_default=False, help="Where rank 0 listens; without it a port that is free."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(metavar="gloo|nccl", show_default=False,
                     help="For scripts that call join() without one; without it nccl where each rank has a GPU."),
    ] = None,
    module: Annotated[
        str | None, typer.Option("-m", metavar="MODULE", show_default=False, help="Run a module instead of a script.")
    ] = None,
) -> None:
    """Run a script on several processes of this machine: course launch --ranks 2 script.py --its --options

    The script finds what torchrun sets: RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. So
    the same script runs under torchrun, on several machines as well. What a rank prints is shown after its number.

    Options before the script belong to this command, those after it to the script. Without a script, all engines of
    the course train one small language model and are compared; further options go there.

    A rank that raises, dies or hangs ends them all, and its error is shown first. Ctrl-C ends them all.

    Exit code: 0 if every rank ended well, 1 if one did not, 2 if an argument is wrong, 130 if it was interrupted.
    """
    from course_lib.parallel.launch import RankError, launch_script

    command = ([module] if module else []) + context.args
    as_module = module is not None
    try:
        if not command or command[0].startswith("-") and not as_module:
            scripts = [word for word in command if word.endswith(".py") and Path(word).is_file()]
            if scripts:
                raise ValueError(f"There is no option {command[0]} of course launch. The script's own options go after "
                                 f"it: course launch --ranks {ranks} {scripts[0]} ...")
            command, as_module = [DEFAULT, *command], True
        launch_script(command, ranks, module=as_module, timeout=timeout, port=port, backend=backend)
    except RankError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(FAILED) from None
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        print("Stopped. All ranks were ended.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
