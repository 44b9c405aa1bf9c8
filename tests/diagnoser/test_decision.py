import numpy as np

from diagnoser.decision import Decision, Score, Thresholds


def score(probability):
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    logit = float(np.log(clipped / (1 - clipped)))
    return Score(logit, np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.zeros(3))


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


def test_it_clears_only_after_a_longer_calm_and_flags_anew():
    found = states([0.999] * 8 + [0.001] * 12 + [0.999] * 8)
    assert found[8].flagged and found[10].flagged
    assert not found[19].flagged and found[19].first_flagged_step is None
    assert found[-1].first_flagged_step > 190


def test_the_joint_probability_is_category_times_root_cause():
    assert states([0.5])[0].joint.tolist() == [1.0, 0.0]
