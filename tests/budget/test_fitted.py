import dataclasses
import json
import time

import pytest

from fastmath_kit.budget.fitted import (
    FittedPolicy,
    MenuRule,
    PatienceStop,
    load_policy,
    read_policy,
    write_policy,
)
from fastmath_kit.budget.policy import ClipPolicy, ProblemState, RunState
from fastmath_kit.budget.throughput import HARDWARE
from fastmath_kit.errors import ConfigError, DataError

QUICK = MenuRule(seconds=50, solved=0.4, num_traces=4, patience_s=(80.0, 20.0, 0.0))
THOROUGH = MenuRule(seconds=150, solved=0.7, num_traces=8, patience_s=(400.0, 100.0, 50.0, 0.0))
MODEL = dataclasses.replace(HARDWARE["h100"], overhead_s=0.0)
POLICY = FittedPolicy(menu=(QUICK, THOROUGH), plenty_s=300.0, max_tokens=9_000, model=MODEL)
FALLBACK = ClipPolicy(base_s=300, high_s=900, num_traces=8, stop_votes=4, max_tokens=9_000)


def state(left_s, num_done=10, **fields):
    fields = {"deadline_s": 10_000.0, "num_problems": 50, **fields}
    return RunState(elapsed_s=fields["deadline_s"] - left_s, num_done=num_done, **fields)


@pytest.mark.parametrize(
    ("run", "num_traces", "patience_s"),
    [
        (state(40 * 50), 4, (80, 20, 0)),  # exactly the quick rule
        (state(40 * 25), 4, (40, 10, 0)),  # half of its time
        (state(40 * 150), 8, (400, 100, 50, 0)),
        (state(40 * 200), 8, (400 * 4 / 3, 100 * 4 / 3, 50 * 4 / 3, 0)),  # spare time is spent
        (state(40 * 50, kappa=2.0), 4, (80, 20, 0)),  # a slow engine: twice the half
        (state(40 * 50, spent_s=9e9, expected_s=4.5e9), 4, (40, 10, 0)),  # harder than planned
        (state(0), 4, (0, 0, 0)),  # too late: nothing
        (state(100, num_done=50), 4, (80, 20, 0)),  # one too many: as if one more followed
        (state(100, num_done=70), 4, (80, 20, 0)),
    ],
)
def test_the_time_left_chooses_from_the_menu(run, num_traces, patience_s):
    rule = POLICY(run)
    assert rule.num_traces == num_traces
    assert rule.stop.patience_s == pytest.approx(patience_s)
    assert rule.timeout_s == pytest.approx(patience_s[0])
    assert rule.why


def test_two_rules_are_mixed_so_that_their_mean_is_the_time_left():
    chosen = [POLICY(state((50 - done) * 75.0, done)) for done in range(50)]
    assert sum(rule.expected_s for rule in chosen) / 50 == pytest.approx(75, rel=0.05)


def test_where_time_is_plentiful_the_clip_rule_decides():
    rule = POLICY(state(40 * 301.0, deadline_s=17_400.0))
    assert (rule.num_traces, rule.stop_votes, rule.stop) == (8, 4, None)
    assert dataclasses.replace(POLICY, plenty_s=None)(state(40 * 301.0, deadline_s=17_400.0)).stop


@pytest.mark.parametrize(
    ("votes", "elapsed_s", "stops"),
    [(0, 79, False), (0, 80, True), (1, 19, False), (1, 20, True), (2, 0, True), (9, 0, True)],
)
def test_patience_by_hand(votes, elapsed_s, stops):
    decision = PatienceStop(patience_s=QUICK.patience_s)(
        ProblemState(elapsed_s=elapsed_s, leader_votes=votes)
    )
    assert (decision.stop is not None) == stops
    assert stops or decision.review_s > elapsed_s


def test_a_policy_file_is_plain_json_and_comes_back(tmp_path):
    path = tmp_path / "policy.json"
    write_policy(POLICY, path)
    assert json.loads(path.read_text())["version"] == 1
    assert read_policy(path) == POLICY
    assert load_policy(path, fallback=FALLBACK) == POLICY


@pytest.mark.parametrize(
    "change",
    [
        None,  # no file
        lambda value: "{",  # cut off
        lambda value: "[1, 2]",
        lambda value: json.dumps({**value, "kind": "recipe"}),  # foreign
        lambda value: json.dumps({**value, "version": 2}),  # from the future
        lambda value: json.dumps({**value, "menu": []}),
        lambda value: json.dumps({**value, "menu": "abc"}),
        lambda value: json.dumps({**value, "plenty_s": "soon"}),
        lambda value: json.dumps({**value, "extra": 1}),
        lambda value: json.dumps({**value, "menu": [{**value["menu"][0], "num_traces": 0}]}),
        lambda value: json.dumps(
            {**value, "menu": [{**value["menu"][0], "seconds": float("nan")}]}
        ),
    ],
)
def test_a_bad_policy_file_falls_back_with_a_warning(tmp_path, change, caplog):
    path = tmp_path / "policy.json"
    if change is not None:
        write_policy(POLICY, path)
        path.write_text(change(json.loads(path.read_text())))
    assert load_policy(path, fallback=FALLBACK) is FALLBACK
    assert "is not used" in caplog.text
    with pytest.raises(DataError, match=r"policy\.json"):
        read_policy(path)


def test_a_decision_takes_less_than_a_millisecond():
    start_s = time.perf_counter()
    for done in range(200):
        POLICY(state(2_000, done % 60))
    assert (time.perf_counter() - start_s) / 200 < 1e-3


def test_an_impossible_menu_is_refused():
    with pytest.raises(ConfigError, match="ascending"):
        dataclasses.replace(POLICY, menu=(THOROUGH, QUICK))
    with pytest.raises(ConfigError, match="at least one trace"):
        dataclasses.replace(QUICK, patience_s=())
