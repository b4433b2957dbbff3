"""`python -m tests.settings_page`: write docs/settings.md, whose tables are made from the settings' struct."""

from __future__ import annotations

from pathlib import Path

from taskengine.config.descriptions import Row, rows

PAGE = Path(__file__).resolve().parent.parent / "docs/settings.md"
ORIGINAL = 7
"""The settings that stand in the README too: those of the original design, the first in the struct."""

INTRODUCTION = """\
# Settings

Settings come from four places. A later place overrides an earlier one:

1. the defaults in the tables below
2. the file `taskengine.toml` in the current folder, or the file that `--config FILE` names
3. environment variables: `TASKENGINE_CHUNKING_SIZE=50`
4. flags: `--chunking-size 50`

In the file a setting's name is a key, in upper or lower case. The file also has the tables `[hardware]`
([hardware.md](hardware.md#the-settings)) and `[policy]` ([policy.md](policy.md)):

```toml
task_workers = 4
tasks = ["robot.py"]

[lanes]
arm = 1
```

`taskengine check` reads the settings without starting anything, and names the line of each mistake. Commands such as
`taskengine call` find the engine by the same settings; `--address` and the variable `TASKENGINE_ADDRESS` go first. A
running engine takes over a changed `[policy]` with `taskengine reload`; every other change takes a restart.

Times are in seconds, sizes in bytes. *In flight* is a task from its arrival until its reply is made.

This page is made from the code: change `taskengine/config/settings.py`, and run `python -m tests.settings_page`.
"""

SECTIONS = {
    "Addresses and ports": (
        *("HOST", "ROUTER_FRONTEND", "ROUTER_BACKEND", "STARTING_PORT", "METRICS_PORT", "STOP_PORT"),
        *("CONNECTIONS", "HANDSHAKE_TIME"),
    ),
    "Tasks and workers": ("TASKS", "TASK_WORKERS", "DATA_WORKERS", "LANES", "PINS", "TRUST_CLOCK"),
    "Throughput and latency": ("RESPONSE_TIME", "CHUNKING", "CHUNKING_SIZE"),
    "Terminal and logs": ("ENABLE_STDOUT", "LOG_LEVEL", "LOG_FORMAT"),
    "Recording": ("RECORD", "RECORD_BYTES", "RECORD_COMMANDS"),
    "Processes that hang, and shutdown": ("HEARTBEAT_INTERVAL", "HEARTBEAT_LIMIT", "DRAIN_TIME"),
    "Limits": (
        *("QUEUE_TASKS", "QUEUE_BYTES", "QUEUE_PACKAGES", "CLIENT_TASKS", "CLIENT_BYTES", "CLIENT_PACKAGES"),
        *("PACKAGE_TASKS", "MESSAGE_BYTES", "PIN_BYTES", "VALUE_DEPTH", "ROUTER_MEMORY", "WORKER_MEMORY"),
    ),
    "Keys and rights": ("CURVE", "KEYS", "AUDIT", "INSECURE", "USER", "GROUP", "TRACEBACKS"),
}
"""In which section of the page a setting stands. A new setting goes into one of them."""
NOTES = {
    "Limits": "Work beyond a limit of tasks, bytes or packages in flight is refused with `Overloaded`, which says when "
    "to try again.\n",
}


def short_table() -> str:
    """Return the README's table: the settings of the original design, without their types."""
    lines = [f"| {row.name} | `{row.default}` | {row.explanation} |" for row in rows()[:ORIGINAL]]
    return "\n".join(["| setting | default | what it does |", "|---|---|---|", *lines])


def table(some: list[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = [f"| {row.name} | `{row.default}` | {row.type} | {row.explanation} |" for row in some]
    return "\n".join(["| setting | default | type | what it does |", "|---|---|---|---|", *lines, ""])


def page() -> str:
    """Return the text of docs/settings.md. Raises KeyError for a setting without a section."""
    found = {row.name: row for row in rows()}
    parts = [INTRODUCTION]
    for title, names in SECTIONS.items():
        some = [found.pop(name) for name in names if name in found]
        parts += [f"## {title}\n" + (f"{NOTES[title]}\n" if title in NOTES else "") + table(some)]
    if found:
        raise KeyError(f"{', '.join(found)}: add to SECTIONS in {__file__}")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
