"""The room that each client has in the audit log."""

from __future__ import annotations

from taskengine.security.audit_budgets import BUDGETS_KEPT, BURST, REFUSALS_RATE, SUMMARY_S, Budgets, LeftOut


def flood(budgets: Budgets, event: str, who: str, now: float, lines: int = 1000, size: int = 200) -> int:
    """How many of so many lines are written."""
    return sum(budgets.left_out_before(event, who, size, now) is not None for _ in range(lines))


def test_nobody_uses_up_the_budget_of_another_or_of_another_event() -> None:
    budgets = Budgets()
    for number in range(3000):
        budgets.left_out_before("not let in", f"print {number}", 200, 100.0)
    for event, who in (("refused", "laptop"), ("refused", "tablet"), ("key revoked", "laptop"), ("cut off", "tablet")):
        assert flood(budgets, event, who, 100.0) == BURST // 200


def test_strangers_share_one_however_many_keys_they_make() -> None:
    budgets = Budgets()
    written = sum(budgets.left_out_before("not let in", str(n), 200, 100.0) is not None for n in range(5000))
    assert written == BURST // 200


def test_a_flood_takes_weeks_to_flush_the_log() -> None:
    budgets = Budgets()
    written = sum(200 * flood(budgets, "refused", "laptop", 100.0 + second, lines=10) for second in range(3600))
    assert written <= BURST + 3600 * REFUSALS_RATE
    assert (2 * 2**24) / REFUSALS_RATE > 14 * 86400


def test_the_next_line_says_how_many_there_were() -> None:
    budgets = Budgets()
    flood(budgets, "refused", "laptop", 100.0)
    left_out = 1000 - BURST // 200
    assert budgets.left_out_before("refused", "laptop", 200, 120.0) == left_out
    assert budgets.left_out_before("refused", "laptop", 200, 160.0) == 0


def test_where_none_follows_a_summary_says_it_every_minute() -> None:
    budgets = Budgets()
    flood(budgets, "refused", "laptop", 100.0)
    assert list(budgets.summaries(100.0 + SUMMARY_S / 2)) == []
    left_out = 1000 - BURST // 200
    assert list(budgets.summaries(100.0 + SUMMARY_S)) == [LeftOut("refused", "laptop", left_out)]
    flood(budgets, "refused", "laptop", 100.0 + SUMMARY_S, lines=7)
    assert list(budgets.summaries(101.0 + SUMMARY_S)) == []
    assert list(budgets.summaries(100.0 + 2 * SUMMARY_S)) == [LeftOut("refused", "laptop", 2)], "5 found room again"


def test_budgets_are_kept_within_bounds_and_none_is_forgotten_without_a_word() -> None:
    budgets = Budgets()
    flood(budgets, "refused", "first", 100.0)
    for number in range(BUDGETS_KEPT):
        budgets.left_out_before("refused", str(number), 200, 100.0)
    assert len(budgets._known) == BUDGETS_KEPT
    assert list(budgets.summaries(100.0)) == [LeftOut("refused", "first", 1000 - BURST // 200)]
