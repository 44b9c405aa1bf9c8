import numpy as np
import synthetic_runs

from diagnoser import graph, schema
from diagnoser.contracts import Firing
from diagnoser.origin import locate

GRAPH = graph.build(synthetic_runs.anatomy("bert", 4), schema.node_kinds())


def suspicion(**values):
    names = dict.fromkeys(GRAPH.names, 0.05)
    names.update({key.replace("_at_", "@"): value for key, value in values.items()})
    return np.array([names[name] for name in GRAPH.names])


def firing(site, node, layer, rank, cause):
    return Firing(site, node, layer, "m", 1.0, 0, rank, (cause,))


def test_without_contracts_the_most_suspicious_layer_of_the_category_is_named():
    found = locate(GRAPH, suspicion(ffn_at_2=0.8, mask_at_1=0.9), (), "ffn")
    assert (found.first, found.layers) == (2, (2,))


def test_layers_nearly_as_suspicious_are_named_too():
    found = locate(GRAPH, suspicion(ffn_at_2=0.8, ffn_at_3=0.7), (), "ffn")
    assert found.layers == (2, 3)


def test_a_contract_that_fires_decides_the_layer():
    broken = (
        firing("mask@1", "mask", 1, 5, "masking/mask_application"),
        firing("attention@3", "attention", 3, 50, "kernel/numerical_precision"),
    )
    found = locate(GRAPH, suspicion(mask_at_3=0.6), broken, "masking")
    assert (found.first, found.layers) == (1, (1,))
    assert found.suspicion["mask@1"] > 0.9


def test_a_component_without_layers_names_none():
    broken = (firing("output", "output", None, 5, "output/output_scaling"),)
    assert locate(GRAPH, suspicion(output=0.9), broken, "output").layers == ()
    assert locate(GRAPH, suspicion(), (), "output").layers == ()


def test_nothing_is_located_without_a_category():
    found = locate(GRAPH, suspicion(ffn_at_2=0.8), (), None)
    assert found.layers == () and found.suspicion["ffn@2"] == 0.8
