"""The command `taskengine completion`."""

from __future__ import annotations

import click

VARIABLE = "_TASKENGINE_COMPLETE"
"""The variable by which click's script asks the command for completions; click makes the name."""
HOW = """\b
bash:  taskengine completion bash > ~/.local/share/bash-completion/completions/taskengine
zsh:   taskengine completion zsh > DIR/_taskengine, for a folder DIR of $fpath
fish:  taskengine completion fish > ~/.config/fish/completions/taskengine.fish"""


@click.command(epilog=HOW)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands and options.

    `source <(taskengine completion bash)` takes effect at once, in this shell only. The command has to be in PATH, as
    in a virtual environment that is active.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"this version of click has no completion for {shell}", context)
    click.echo(made(context.find_root().command, {}, "taskengine", VARIABLE).source())
