"""Musical notes by their names, as gpiozero's `Tone` has them. Pure.

A note is a letter from A to G, perhaps a sharp or a flat, and the octave in scientific pitch notation. In the equal
temperament of ISO 16, A4 has 440 Hz, and twelve equal semitones make an octave.
"""

from __future__ import annotations

import re

from taskengine import BadArguments

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SIGNS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1, "♮": 0}
_NOTE = re.compile(r"([A-G])([#♯b♭♮]?)([0-9])")
_A4_HZ, _A4 = 440.0, 4 * 12 + 9


def frequency_of(note: str) -> float:
    """Return the frequency of a note, such as "A4" or "C#5", in Hz. Raises BadArguments for any other text."""
    found = _NOTE.fullmatch(note)
    if found is None:
        raise BadArguments(f'a note is a letter from A to G, # or b, and an octave, such as "C#5", not {note!r:.100}')
    letter, sign, octave = found.groups()
    semitones = 12 * int(octave) + _SEMITONES[letter] + _SIGNS[sign]
    return float(_A4_HZ * 2 ** ((semitones - _A4) / 12))
