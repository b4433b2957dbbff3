"""The intervals and time limits of the processes of an engine."""

from __future__ import annotations

from typing import Final

TURN_MESSAGES: Final = 100
"""The most messages that the router takes from one side before it looks at the other."""
TURN_S: Final = 0.02
"""The longest time, in s, for which it does so; the message at hand is finished."""
TICK_MS: Final = 50
"""How often the router looks for passed deadlines, in ms."""
IMPORT_TIMEOUT_S: Final = 60.0
"""The longest time, in s, that task modules may take to load."""
KEYS_LOOK_MS: Final = 250
"""How often the engine looks whether the allowed keys have changed, in ms."""
