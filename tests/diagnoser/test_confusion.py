from dataclasses import replace
from xml.etree import ElementTree

from diagnoser.confusion import CLASSES, HEALTHY, counts, picture
from diagnoser.replay import Prediction

CLEAN = Prediction(
    id="r",
    group="bert/a",
    family="bert",
    operator=None,
    truth=None,
    true_layers=(),
    start_step=None,
    frames=9,
    faulty=False,
    probability=0.1,
    ever_flagged=False,
    first_flagged_step=None,
    delay=None,
    category=None,
    root_cause=None,
    layer=None,
    layers=(),
    contract_faulty=False,
    contract_category=None,
    contract_root_cause=None,
    contract_layer=None,
    contract_ever=False,
)


def answered(truth, category):
    return replace(CLEAN, truth=truth, faulty=category is not None, category=category)


def test_what_is_counted():
    found = counts(
        [
            CLEAN,
            answered(None, "ffn"),
            answered("ffn/regularization", None),
            answered("ffn/regularization", "ffn"),
            answered("qkv/dimension", "ffn"),
            answered("qkv/dimension", "ffn"),
        ]
    )
    assert found == {
        (HEALTHY, HEALTHY): 1,
        (HEALTHY, "ffn"): 1,
        ("ffn", HEALTHY): 1,
        ("ffn", "ffn"): 1,
        ("qkv", "ffn"): 2,
    }


def test_the_picture_shows_every_count_at_its_place():
    drawn = picture({("masking", "masking"): 30, ("masking", HEALTHY): 10}, "Some <runs>")
    root = ElementTree.fromstring(drawn)
    assert root.attrib["aria-label"] == "Some <runs>"
    space = "{http://www.w3.org/2000/svg}"
    cells = [r for r in root.iter(f"{space}rect") if "fill-opacity" in r.attrib]
    assert [r.attrib["class"] for r in cells] == ["right", "wrong"]
    assert float(cells[0].attrib["fill-opacity"]) > float(cells[1].attrib["fill-opacity"])
    assert cells[0].attrib["y"] == cells[1].attrib["y"]
    assert len(list(root.iter(f"{space}rect"))) == 1 + len(CLASSES) ** 2 + 2
    told = [t.text for t in root.iter(f"{space}text") if "count" in t.attrib.get("class", "")]
    assert told == ["30", "10"]
