"""The command `taskengine audit`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from taskengine.cli.common import SAID_NO, json_option, load_settings, plain_errors, print_json
from taskengine.errors import SettingsError

WRONG_TOLD = 10


@click.group(no_args_is_help=False)
def audit() -> None:
    """Check the audit log."""


@audit.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--kept", metavar="SEAL", help="A seal that an earlier run printed: check that its line is still there.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="The TOML file of settings [default ./taskengine.toml]."
)
@json_option
def audit_verify(file: Path | None, kept: str | None, config: Path | None, as_json: bool) -> None:
    """Check that no line of the log was changed, added or taken out, in FILE or where the settings have it.

    Each line seals those before it. A user who can write the file can seal it anew; so keep the last seal elsewhere.
    """
    with plain_errors():
        path = file or _log(config)
        from taskengine.security.audit import verify_file

        try:
            findings = verify_file(path)
            is_kept = kept is None or any(kept.encode() in found.read_bytes() for found, _ in findings)
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from None
        wrong = [f"{found}, line {number}: {what}" for found, finding in findings for number, what in finding.wrong]
        if not is_kept:
            wrong.append(f"{path}: no line has the seal {kept}")
        count, last = sum(finding.sealed for _, finding in findings), findings[-1][1].last
        unsealed = sum(finding.unsealed for _, finding in findings)
        if as_json:
            print_json({"sealed": count, "unsealed": unsealed, "wrong": wrong, "last": last})
            sys.exit(SAID_NO if wrong else 0)
        for line in wrong[:WRONG_TOLD]:
            click.echo(f"taskengine: {line}", err=True)
        before = f" after {unsealed} without a seal" if unsealed else ""
        click.echo(f"{count} sealed lines{before}, {len(wrong)} things wrong; the last seal is {last or 'none'}")
        sys.exit(SAID_NO if wrong else 0)


def _log(config: Path | None) -> Path:
    """Return where the settings have the log."""
    from taskengine.security.audit import AUDIT_FILE, file_of
    from taskengine.security.keys import default_folder

    settings = load_settings(config, {})
    target = file_of(settings)
    if isinstance(target, str):
        raise SettingsError(f"the log goes to {target}; only a log in a file can be verified")
    return target or (settings.keys_folder or default_folder()) / AUDIT_FILE
