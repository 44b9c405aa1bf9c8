import numpy as np
import pytest
import synthetic_runs
import torch

from diagnoser import graph, model, schema
from diagnoser.batch import collate
from diagnoser.dataset import load_samples, to_batch
from diagnoser.features import RollingFeatures
from diagnoser.losses import contrastive, inverse_frequency
from diagnoser.model import (
    CERTAIN,
    DiagnosisNetwork,
    Shape,
    cause_log_probabilities,
    detection_logit,
)
from diagnoser.rules import RULES
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS
from diagnoser.votes import CAUSE_CATEGORY, Votes


def sample(family, layers, **fault):
    header = synthetic_runs.header(family, layers)
    rolling = RollingFeatures(header)
    for frame in synthetic_runs.frames(header, 6, **fault):
        found = rolling.update(frame)
    return graph.build(header.anatomy, schema.node_kinds()), found.nodes


def joined(*samples):
    return collate(
        [s[0] for s in samples],
        [s[1] for s in samples],
        np.zeros((len(samples), len(RULES)), np.float32),
    )


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DiagnosisNetwork(schema.all_feature_names()).eval()


def test_a_batch_gives_each_graph_what_it_gets_alone(network):
    samples = [sample("bert", 2), sample("llama", 5), sample("gpt2", 3)]
    with torch.no_grad():
        together = network(joined(*samples))
        alone = [network(joined(one)) for one in samples]
    for place, one in enumerate(alone):
        torch.testing.assert_close(together.category[place], one.category[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.cause[place], one.cause[0], atol=1e-4, rtol=1e-4)


def test_node_answers_return_to_the_order_of_the_graph(network):
    samples = [sample("bert", 2), sample("llama", 4)]
    batch = joined(*samples)
    with torch.no_grad():
        together = network(batch).origin[batch.order]
        second = joined(samples[1])
        alone = network(second).origin[second.order]
    first = len(samples[0][0].node_kind)
    torch.testing.assert_close(together[first:], alone, atol=1e-5, rtol=1e-4)


def test_edges_carry_a_change_to_other_nodes_only_with_message_passing():
    healthy = sample("bert", 3)
    broken = (healthy[0], {**healthy[1], "mask": healthy[1]["mask"] + 3.0})
    for rounds, spreads in ((3, True), (0, False)):
        torch.manual_seed(0)
        net = DiagnosisNetwork(schema.all_feature_names(), Shape(rounds=rounds)).eval()
        states = []
        for one in (healthy, broken):
            batch = joined(one)
            state = torch.cat([net.encode(kind, batch.x[kind]) for kind in net.kinds])
            state = net._propagate(state, batch)
            states.append(state[batch.order])
        moved = (states[0] - states[1]).abs().sum(dim=1) > 1e-6
        names = np.array(healthy[0].names)
        reached = {str(name).split("@")[0] for name in names[moved.numpy()]}
        assert "mask" in reached
        assert ("attention" in reached) is spreads


def test_the_kind_of_an_edge_matters(network):
    one = sample("gpt2", 2)
    batch, other = joined(one), joined(one)
    other.edge_type = (other.edge_type + 1) % len(graph.RELATIONS)
    with torch.no_grad():
        assert not torch.allclose(network(batch).category, network(other).category)


def test_root_cause_probabilities_sum_to_one_in_every_category(network):
    with torch.no_grad():
        found = cause_log_probabilities(network(joined(sample("bert", 2)))).exp()[0]
    for category in set(CAUSE_CATEGORY):
        members = [n for n, c in enumerate(CAUSE_CATEGORY) if c == category]
        assert float(found[members].sum()) == pytest.approx(1.0, abs=1e-5)


def test_same_root_cause_attracts_and_another_of_the_category_repels():
    category, cause = torch.tensor([0, 0, 0, 0]), torch.tensor([1, 1, 2, 2])
    apart = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    mixed = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert contrastive(apart, category, cause) < contrastive(mixed, category, cause)
    alone = contrastive(apart[:1], category[:1], cause[:1])
    assert float(alone) == 0.0


def test_rare_classes_weigh_more_and_absent_ones_nothing():
    weights = inverse_frequency(torch.tensor([0, 0, 0, 1, -1]), 3)
    assert weights[1] == 3 * weights[0] > 0
    assert weights[2] == 0


def test_every_parameter_learns(synthetic_corpus):
    from diagnoser.losses import class_weights, loss

    torch.manual_seed(0)
    samples = load_samples(synthetic_corpus)
    net = DiagnosisNetwork(schema.all_feature_names())
    batch, targets = to_batch(samples)
    weights = class_weights(targets.category, targets.cause)
    loss(net, net(batch), targets, weights, batch).backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def met(*names):
    fired = torch.zeros(1, len(RULES))
    for row, rule in enumerate(RULES):
        if f"{rule.nodes[0]}/{rule.metric}" in names:
            fired[0, row] = 1
    return fired


def test_the_first_rule_in_causal_order_has_the_loudest_voice():
    _, causes, categories = Votes()(met("score/precision_gap", "ffn/dead_neurons"))
    by_name = dict(zip(ROOT_CAUSE_KEYS, causes[0].tolist(), strict=True))
    assert by_name["score/precision_handling"] == 1.0
    assert by_name["ffn/neuron_dropout"] == 0.5
    assert categories[0].max() == 1.0
    assert not Votes()(torch.zeros(1, len(RULES)))[1].any()


def test_a_rule_that_also_speaks_on_healthy_runs_is_muted():
    votes = Votes()
    healthy = torch.cat([met("ffn/in_gap")] * 3 + [met()] * 97)
    votes.fit(healthy)
    heard, causes, _ = votes(met("ffn/in_gap", "score/precision_gap"))
    assert heard.sum() == 1
    assert dict(zip(ROOT_CAUSE_KEYS, causes[0].tolist(), strict=True))["ffn/weight_scaling"] == 0
    assert not votes.flagged(votes(met("ffn/in_gap"))[0]).any()
    assert votes.flagged(heard).all()


def test_only_an_exact_and_reliable_contract_is_certain():
    votes = Votes()
    assert votes.certain(votes(met("score/precision_gap"))[0]).all()
    assert not votes.certain(votes(met("ffn/in_gap"))[0]).any(), "a comparison with peers"
    votes.fit(met("score/precision_gap"))
    assert not votes.certain(votes(met("score/precision_gap"))[0]).any(), "muted"


def test_the_first_rule_of_each_category_names_its_cause():
    votes = Votes()
    muted = met("residual_ffn/branch_gain")
    votes.fit(muted.repeat(100, 1))
    rules = met(
        "qkv/tied_heads", "qkv/zero_weights", "ffn/dead_neurons", "residual_ffn/branch_gain"
    )
    named = votes.named(votes(rules)[0])[0]
    keys = {ROOT_CAUSE_KEYS[at] for at in named.nonzero()[:, 0].tolist()}
    assert keys == {"qkv/parameter_initialization", "ffn/neuron_dropout"}
    assert not votes.named(torch.zeros(1, len(RULES))).any()


def test_a_certain_contract_is_not_outvoted(network):
    one = sample("bert", 2)
    with torch.no_grad():
        found = network(collate([one[0]], [one[1]], met("score/precision_gap").numpy()))
        plain = network(joined(one))
    found.faulty -= 50
    plain.faulty -= 50
    assert float(detection_logit(found, 2.0)) == CERTAIN
    assert float(detection_logit(plain, 2.0)) < -20


def test_an_untrained_network_already_follows_a_broken_contract(network):
    one = sample("bert", 2)
    batch = collate([one[0]], [one[1]], met("score/precision_gap").numpy())
    with torch.no_grad():
        found = network(batch)
        without = network(joined(one))
    assert CATEGORY_NAMES[int(found.category.argmax())] == "score"
    assert float(found.faulty) > float(without.faulty) + 2


def test_in_training_category_learns_to_do_without_contracts_detection_does_not(
    network, monkeypatch
):
    monkeypatch.setattr(model, "SILENCED", 1.0)
    one = sample("bert", 2)
    found = []
    network.train()
    with torch.no_grad():
        for fired in (met("score/precision_gap"), met()):
            torch.manual_seed(0)
            found.append(network(collate([one[0]], [one[1]], fired.numpy())))
    network.eval()
    heard, silent = found
    assert torch.equal(heard.category, silent.category)
    assert torch.equal(heard.cause, silent.cause)
    assert float(heard.faulty) > float(silent.faulty) + 2


def test_detection_does_not_depend_on_the_edges(network):
    batch = joined(sample("gpt2", 2))
    with torch.no_grad():
        before = network(batch)
        batch.edge_index = batch.edge_index[:, :0]
        batch.edge_type, batch.edge_weight = batch.edge_type[:0], batch.edge_weight[:0]
        after = network(batch)
    assert torch.equal(before.faulty, after.faulty)
    assert not torch.equal(before.category, after.category)
