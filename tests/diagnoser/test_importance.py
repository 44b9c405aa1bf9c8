import pytest
import synthetic_runs
import torch

from diagnoser import schema
from diagnoser.engine import Engine
from diagnoser.importance import by_kind, importance
from diagnoser.rules import RULES
from diagnoser.taxonomy import ROOT_CAUSE_KEYS
from diagnoser.votes import Votes

MINE = ROOT_CAUSE_KEYS.index("score/normalization")
KIN = ROOT_CAUSE_KEYS.index("score/implementation")
STRANGER = ROOT_CAUSE_KEYS.index("ffn/neuron_dropout")


def rule_of(node, metric, cause):
    """The first one on a metric that speaks for a cause."""
    said = (node, metric, cause)
    return next(n for n, r in enumerate(RULES) if said == (r.nodes[0], r.metric, r.causes[0]))


def test_importance_is_the_share_in_the_lead_over_both_nearest_rivals():
    logits = torch.full((len(ROOT_CAUSE_KEYS), 3), -10.0)
    logits[MINE] = torch.tensor([-1.0, -1.0, -5.0])
    logits[KIN] = torch.tensor([-4.0, -2.0, -1.0])
    logits[STRANGER] = torch.tensor([-1.0, -5.0, -4.0])
    # Leads: 3 + 0, 1 + 4, -4 - 1.
    assert importance(logits, MINE).tolist() == pytest.approx([3 / 8, 5 / 8, 0.0])


def test_a_cause_that_nothing_speaks_for_has_no_importance():
    logits = torch.zeros(len(ROOT_CAUSE_KEYS), 3)
    logits[MINE] = -1.0
    assert not importance(logits, MINE).any()


def test_what_a_contract_says_counts_where_it_fires():
    votes = Votes()
    parts = torch.rand(len(ROOT_CAUSE_KEYS), 4)
    fired, met_at = torch.zeros(len(RULES)), torch.zeros(len(RULES), dtype=torch.long)
    first = rule_of("score", "scale_ratio", "score/normalization")
    second = rule_of("ffn", "dead_neurons", "ffn/neuron_dropout")
    fired[[first, second]] = 1
    met_at[first], met_at[second] = 2, 3
    logits = by_kind(votes, parts, fired, met_at)
    said = (logits + parts)[[MINE, STRANGER]]
    voice = float(votes.cause.detach())
    assert said[0].tolist() == pytest.approx([0, 0, voice, 0], abs=1e-5)
    assert said[1].tolist() == pytest.approx([0, 0, 0, voice / 2], abs=1e-5)
    _, causes, _ = votes(fired[None])
    torch.testing.assert_close(logits.sum(dim=1), votes.cause * causes[0] - parts.sum(dim=1))


def test_every_rule_reads_a_node_that_the_network_knows():
    assert {node for rule in RULES for node in rule.nodes} <= set(schema.node_kinds())


def test_a_broken_contract_makes_its_component_the_most_important(trained):
    header = synthetic_runs.header("gpt2", 3)
    engine = Engine(header, trained)
    for frame in synthetic_runs.frames(header, 12, 5, "score/normalization", 1):
        found = engine.update(frame)
    assert next(iter(found.importance)) == "score"
    assert sum(found.importance.values()) == pytest.approx(1.0)
