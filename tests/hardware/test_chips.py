"""The gpiochip of the header on made-up machines: found by its label, whatever its number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import lgpio
import pytest

from taskengine import SettingsError
from taskengine_hardware.chips import ChipInfo, chosen_chip, find_chip

RP1, EXPANDER = ChipInfo("gpiochip0", "pinctrl-rp1"), ChipInfo("gpiochip1", "raspberrypi-exp-gpio")
MACHINES: Mapping[str, tuple[dict[int, ChipInfo], int]] = {
    "Pi Zero": ({0: ChipInfo("gpiochip0", "pinctrl-bcm2835")}, 0),
    "Pi 3": ({0: ChipInfo("gpiochip0", "pinctrl-bcm2835"), 1: ChipInfo("gpiochip1", "brcmvirt-gpio"), 2: EXPANDER}, 0),
    "Pi 4": ({0: ChipInfo("gpiochip0", "pinctrl-bcm2711"), 1: EXPANDER}, 0),
    "Pi 4 with an expander that came first": ({0: EXPANDER, 1: ChipInfo("gpiochip1", "pinctrl-bcm2711")}, 1),
    "Pi 5 before Linux 6.6.47": (
        {number: ChipInfo(f"gpiochip{number}", f"gpio-brcmstb@{number}") for number in range(4)}
        | {4: ChipInfo("gpiochip4", "pinctrl-rp1")},
        4,
    ),
    "Pi 5 since then": ({0: RP1, 4: RP1, 10: ChipInfo("gpiochip10", "gpio-brcmstb@107d508500")}, 0),
    "another board with one chip": ({3: ChipInfo("gpiochip3", "sunxi")}, 3),
}
ROCK = {0: ChipInfo("gpiochip0", "gpio0"), 1: ChipInfo("gpiochip1", "gpio1")}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_headers_chip_is_found_by_its_label(machine: str) -> None:
    chips, number = MACHINES[machine]
    assert chosen_chip(None, chips) == number
    assert chosen_chip(chips[number].label, chips) == number


@pytest.mark.parametrize(
    ("label", "chips", "says"),
    [
        (None, ROCK, 'label of a Pi\'s header .*gpiochip0 "gpio0", gpiochip1 "gpio1".*chip = "LABEL"'),
        (None, {}, "there are none that can be opened. Is the user in the group gpio"),
        ("pinctrl-rp1", ROCK, "no gpiochip has the label 'pinctrl-rp1'; there are gpiochip0"),
        (
            "twin",
            {0: ChipInfo("gpiochip0", "twin"), 1: ChipInfo("gpiochip1", "twin")},
            "several gpiochips .*name a number",
        ),
    ],
)
def test_what_cannot_be_told_is_an_error_with_what_there_is(
    label: str | None, chips: Mapping[int, ChipInfo], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        chosen_chip(label, chips)


def test_devices_are_asked_and_closed_ones_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chips = {0: EXPANDER, 2: RP1}
    opened: list[int] = []

    def open_chip(number: int) -> int:
        if number not in chips:
            raise lgpio.error("permission denied")
        opened.append(number)
        return 100 + number

    monkeypatch.setattr(lgpio, "gpiochip_open", open_chip)
    monkeypatch.setattr(lgpio, "gpio_get_chip_info", lambda handle: (0, 54, *chips[handle - 100]))
    monkeypatch.setattr(lgpio, "gpiochip_close", lambda handle: opened.remove(handle - 100))
    for name in ("gpiochip0", "gpiochip1", "gpiochip2", "gpiomem"):
        (tmp_path / name).touch()
    assert find_chip(None, tmp_path) == 2
    assert find_chip(EXPANDER.label, tmp_path) == 0
    assert find_chip(7, tmp_path) == 7
    assert opened == []
