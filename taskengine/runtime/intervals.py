"""How often the processes of an engine look at what, and how long at most."""

from __future__ import annotations

from typing import Final

TURN_MESSAGES: Final = 100
"""Messages that the router takes from one side before it looks at the other."""
TURN_S: Final = 0.02
"""How long it does so at most, in s, and a message more."""
TICK_MS: Final = 50
"""How often the router looks for passed deadlines, in ms."""
IMPORT_TIMEOUT_S: Final = 60.0
"""How long task modules may take to load."""
KEYS_LOOK_MS: Final = 250
"""How often the engine looks whom it lets in, in ms."""
