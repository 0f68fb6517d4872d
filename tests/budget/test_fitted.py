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
from fastmath_kit.budget.pricing import NUM_LEFT
from fastmath_kit.budget.throughput import HARDWARE
from fastmath_kit.errors import ConfigError, DataError

WIDTH = len(NUM_LEFT)
QUICK = MenuRule(seconds=50, solved=0.4, num_traces=4, patience_s=(80.0, 20.0, 0.0))
THOROUGH = MenuRule(
    seconds=150,
    solved=0.7,
    num_traces=8,
    patience_s=(400.0, 100.0, 50.0, 0.0),
    from_s=(300.0, *(100.0,) * (WIDTH - 1)),  # the last problem risks less
)
PATIENT = MenuRule(
    seconds=200, solved=0.8, num_traces=8, patience_s=(1e6, 0.0), from_s=(900.0,) * WIDTH
)
MENU = (QUICK, THOROUGH, PATIENT)
POLICY = FittedPolicy(menu=MENU, max_tokens=9_000, model=HARDWARE["h100"])
FALLBACK = ClipPolicy(base_s=300, high_s=900, num_traces=8, stop_votes=4, max_tokens=9_000)


def state(left_s, num_done=10, **fields):
    fields = {"deadline_s": 60_000.0, "num_problems": 50, **fields}
    return RunState(elapsed_s=fields["deadline_s"] - left_s, num_done=num_done, **fields)


@pytest.mark.parametrize(
    ("run", "entry", "longer"),
    [
        (state(40 * 99), QUICK, 1),
        (state(40 * 100), THOROUGH, 1),
        (state(40 * 899), THOROUGH, 1),
        (state(40 * 900), PATIENT, 1),  # time is plentiful
        (state(299, num_done=49), QUICK, 1),  # the last problem
        (state(300, num_done=49), THOROUGH, 1),
        (state(40 * 199, kappa=2.0), QUICK, 2),  # a slow engine: half the share, twice the wait
        (state(40 * 200, kappa=2.0), THOROUGH, 2),
        (state(40 * 199, spent_s=9e9, expected_s=4.5e9), QUICK, 2**0.5),  # harder or longer
        (state(40 * 51, spent_s=4.5e9, expected_s=9e9), THOROUGH, 0.5**0.5),  # easier or shorter
        (state(40 * 249, spent_s=9e9, expected_s=1e9), QUICK, 2.5**0.5),  # so much more at most
        (state(40 * 250, spent_s=9e9, expected_s=1e9), THOROUGH, 2.5**0.5),
        (state(40 * 40, spent_s=1e9, expected_s=9e9), THOROUGH, 0.4**0.5),  # and so much less
        (state(40 * 200, kappa=2.0, spent_s=9e9, expected_s=4.5e9), THOROUGH, 2),  # only slower
        (state(0), QUICK, 1),  # too late: nothing
        (state(199, num_done=50), QUICK, 1),  # one too many: as if one more followed
        (state(200, num_done=50), THOROUGH, 1),
        (state(200, num_done=70), THOROUGH, 1),
        (state(350 * 100, num_done=0, num_problems=350), THOROUGH, 1),  # more than the table knows
    ],
)
def test_the_time_left_chooses_from_the_menu(run, entry, longer):
    rule = POLICY(run)
    patience_s = [longer * wait_s for wait_s in entry.patience_s]
    assert rule.stop.patience_s == pytest.approx(patience_s)
    assert (rule.num_traces, rule.expected_s) == (entry.num_traces, entry.seconds)
    left_s = run.deadline_s - run.elapsed_s
    assert rule.timeout_s == pytest.approx(min(patience_s[0], left_s))
    assert rule.why


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


def test_a_stop_says_why():
    patience = PatienceStop(patience_s=QUICK.patience_s)
    reasons = [
        patience(ProblemState(elapsed_s=90.0, leader_votes=votes)).stop for votes in range(3)
    ]
    assert reasons == ["gave up", "patience", "votes"]


def test_a_policy_file_is_plain_json_and_comes_back(tmp_path):
    path = tmp_path / "policy.json"
    write_policy(POLICY, path)
    assert json.loads(path.read_text())["version"] == 3
    assert read_policy(path) == POLICY
    assert load_policy(path, fallback=FALLBACK) == POLICY


@pytest.mark.parametrize(
    "change",
    [
        None,  # no file
        lambda value: "{",  # cut off
        lambda value: "[1, 2]",
        lambda value: json.dumps({**value, "kind": "recipe"}),  # foreign
        lambda value: json.dumps({**value, "version": 4}),  # from the future
        lambda value: json.dumps({**value, "version": 2}),  # of another menu
        lambda value: json.dumps({**value, "menu": []}),
        lambda value: json.dumps({**value, "menu": "abc"}),
        lambda value: json.dumps({**value, "max_tokens": "many"}),
        lambda value: json.dumps({**value, "max_tokens": 1.5}),
        lambda value: json.dumps({**value, "max_tokens": float("nan")}),
        lambda value: json.dumps({**value, "reserve_s": 60.0}),
        lambda value: json.dumps({**value, "menu": [{**value["menu"][0], "num_traces": 8.5}]}),
        lambda value: json.dumps({**value, "menu": [{**value["menu"][0], "patience_s": [1, 2]}]}),
        lambda value: json.dumps({**value, "extra": 1}),
        lambda value: json.dumps({**value, "menu": [{**value["menu"][0], "from_s": [0.0]}]}),
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
    with pytest.raises(ConfigError, match="whole number of traces"):
        dataclasses.replace(QUICK, patience_s=())
