import pytest
import synthetic_runs
import torch

from diagnoser import manifest, weights
from diagnoser.dataset import load_samples
from diagnoser.extract import extract_all
from diagnoser.fitting import Settings, fit


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What is made of the small corpus takes long: one worker makes it, and has all that ask."""
    for item in items:
        if "synthetic_corpus" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("small corpus"))


@pytest.fixture(scope="session")
def synthetic_corpus(tmp_path_factory):
    """A small labelled corpus with its features extracted."""
    folder = synthetic_runs.write_corpus(tmp_path_factory.mktemp("corpus"), runs_each=2, count=12)
    return extract_all(manifest.read(folder), workers=1)


@pytest.fixture(scope="session")
def trained(synthetic_corpus):
    """A network fitted to the small corpus in a few seconds."""
    torch.set_num_threads(1)
    return fit(load_samples(synthetic_corpus), Settings(epochs=24, batch=64, patience=24))


@pytest.fixture(scope="session")
def weights_file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "some.safetensors"
    weights.save(trained, path)
    return path
