"""Removes details of the engine's machine from errors that clients get. Pure.

The setting TRACEBACKS turns this on. Then no traceback is sent, and an absolute path in an error is cut to its end.
"""

from __future__ import annotations

import re

from taskengine.errors import TaskEngineError, from_wire, to_wire

_FOLDERS = re.compile(
    r"""
    # in quotes a folder's name may hold a space, and the other quotes
    (?<=(['"`])) (?: ~[\w.-]* )? / (?: (?!\1) [^\n] )* / (?= (?!\1) [^/\n] )
    | (?P<scheme> \bfile: (?: //[\w.-]* )? ) / (?: [^\s'"]* / )? (?= [^\s'"/] )
    | (?<! [\w/.~] ) ~ [\w.-]+ / (?: [^\s'"]* / )? (?= [^\s'"/] )  # names a user
    | (?: (?<! [\w/.~] ) | (?<= \s-[A-Za-z] ) | (?<= ^-[A-Za-z] ) ) (?: ~ | \.\. (?: /\.\. )* )?
      (?: / | (?<! [:/] ) // ) (?! / )
      (?: [^\s'"] | (?<= \w ) ['"] (?= \w ) )* / (?= [^\s'"/] )
    | (?<! \w ) [A-Za-z]: [\\/]+ (?: [^\s'"\\/]+ [\\/]+ )+ (?= [^\s'"\\/] )  # Windows, and its shares
    | (?<! [\w\\] ) \\{2,} [\w.$-]+ [\\/]+ (?: [^\s'"\\/]+ [\\/]+ )* (?= [^\s'"\\/] )
    """,
    re.VERBOSE | re.MULTILINE,
)


def without_folders(text: str) -> str:
    """Return the text with each absolute path of more than one component shortened to the last one.

    Paths from a home or from above the current folder, Windows paths, and paths in `file:` addresses are shortened too.
    """
    return _FOLDERS.sub(lambda found: found["scheme"] or "", text)


def discreet(error: TaskEngineError) -> TaskEngineError:
    """Return the error without traceback and folders."""
    code, message, fields = to_wire(error)
    told = {name: without_folders(value) if isinstance(value, str) else value for name, value in fields.items()}
    if "traceback" in told:
        told["traceback"] = ""
    return from_wire(code, without_folders(message), told)
