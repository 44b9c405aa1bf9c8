import numpy as np

from diagnoser.decision import Decision, Score, Thresholds


def score(probability, category=(1.0, 0.0), certain=False):
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    logit = float(np.log(clipped / (1 - clipped)))
    return Score(logit, np.array(category), np.array([1.0, 1.0]), np.zeros(3), certain)


def states(probabilities, measured=1.0):
    decision = Decision(Thresholds(0.9, 0.4), (0, 1))
    return [decision.update(10 * n, score(p), measured) for n, p in enumerate(probabilities)]


def test_too_few_frames_are_not_enough():
    assert [s.enough for s in states([0.999] * 4)] == [False, False, True, True]


def test_too_little_measured_is_not_enough_and_never_flags():
    found = states([0.999] * 10, measured=0.01)
    assert not any(s.enough or s.flagged for s in found)


def test_it_flags_after_the_evidence_held_and_says_since_when():
    found = states([0.05] * 5 + [0.999] * 8)
    first = next(n for n, s in enumerate(found) if s.flagged)
    assert 5 < first <= 9
    assert found[-1].first_flagged_step == 10 * first


def test_one_odd_frame_neither_flags_nor_clears():
    assert not any(s.flagged for s in states([0.01] * 5 + [0.9999] + [0.01] * 5))
    assert states([0.999] * 10 + [0.01] + [0.999] * 3)[-1].flagged


def test_a_contract_broken_for_sure_flags_at_once_and_is_told_as_sure():
    decision = Decision(Thresholds(0.9, 0.4), (0, 1))
    healthy = [decision.update(n, score(0.01), 1.0) for n in range(5)]
    now = decision.update(5, score(0.99, certain=True), 1.0)
    assert not any(s.flagged for s in healthy)
    assert (now.flagged, now.first_flagged_step) == (True, 5)
    assert now.probability > 0.98


def test_even_a_sure_contract_waits_for_enough_frames():
    decision = Decision(Thresholds(0.9, 0.4), (0, 1))
    found = [decision.update(n, score(0.99, certain=True), 1.0) for n in range(3)]
    assert [s.flagged for s in found] == [False, False, True]


def test_frames_before_the_fault_do_not_say_which_it_is():
    decision = Decision(Thresholds(0.9, 0.4), (0, 1))
    for n in range(5):
        decision.update(n, score(0.01, category=(0.9, 0.1)), 1.0)
    state = decision.update(5, score(0.99, category=(0.0, 1.0)), 1.0)
    assert state.category[1] > 0.95


def test_it_clears_only_after_a_longer_calm_and_flags_anew():
    found = states([0.999] * 8 + [0.001] * 12 + [0.999] * 8)
    assert found[8].flagged and found[10].flagged
    assert not found[19].flagged and found[19].first_flagged_step is None
    assert found[-1].first_flagged_step > 190


def test_the_joint_probability_is_category_times_root_cause():
    assert states([0.5])[0].joint.tolist() == [1.0, 0.0]


def test_within_a_category_the_cause_is_the_one_that_contracts_name_now():
    three = np.array([0, 0, 1])
    decision = Decision(Thresholds(0.9, 0.4), tuple(three.tolist()))

    def told(named):
        cause = np.array([0.9, 0.1, 1.0])
        return Score(3.0, np.array([0.7, 0.3]), cause, np.zeros(3), False, named)

    silent = decision.update(0, told(np.zeros(3)), 1.0)
    assert silent.joint.argmax() == 0
    spoken = decision.update(1, told(np.array([0.0, 1.0, 0.0])), 1.0)
    assert spoken.joint.argmax() == 1
    assert np.allclose(spoken.joint, [0.7 * 0.18, 0.7 * 0.82, 0.3])
    # Over the category, and over what was said before, contracts have no say.
    other = decision.update(2, told(np.array([0.0, 0.0, 1.0])), 1.0)
    assert other.joint.argmax() == 0 and other.category.argmax() == 0
