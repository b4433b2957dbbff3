"""What clients are told of the machine that the engine runs on, where they are not to know it all. Pure.

TRACEBACKS says where that is. Then no traceback is sent, and of each absolute path in an error only its end is left.
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
    """The text with each absolute path of more than one component shortened to the last one.

    So are paths from a home, from above the current folder, of Windows, and those in `file:` addresses.
    """
    return _FOLDERS.sub(lambda found: found["scheme"] or "", text)


def discreet(error: TaskEngineError) -> TaskEngineError:
    """The error as it is told to those who are not to know the machine: no traceback, no folders."""
    code, message, fields = to_wire(error)
    told = {name: without_folders(value) if isinstance(value, str) else value for name, value in fields.items()}
    if "traceback" in told:
        told["traceback"] = ""
    return from_wire(code, without_folders(message), told)
