import megengine.functional as F
import pytest

from official.vision.classification.resnet import model, preact
from tools.pictures.structure import read


def words(steps):
    return [step.text for step in steps]


def test_where_the_shortcut_begins():
    """The forms of v2 differ in it, and in what the papers' shortcut and last block have."""
    forms = [
        read(preact.PreActResNet((2, 2, 1, 1), 3, paper_form=paper), 64) for paper in (False, True)
    ]
    for network, norm in zip(forms, (["BN"], [])):
        first, later = network.stages[1]
        assert (first.fork, words(first.shortcut)) == (2, ["1×1/2, 512", *norm])
        assert (later.fork, later.shortcut, later.after) == (0, (), ())
    mindcv, paper = forms
    assert words(mindcv.stages[0][0].branch)[:3] == ["BN", "ReLU", "1×1, 64"]
    assert words(paper.stages[0][0].branch)[:1] == ["1×1, 64"]
    assert words(mindcv.head) == ["mean 2×2", "linear, 3"]
    assert words(paper.head) == ["BN", "ReLU", "mean 2×2", "linear, 3"]


def test_sizes_are_those_of_the_features():
    network = model.ResNet(model.BasicBlock, (1, 1, 1, 1), 3)
    steps = read(network, 100)
    features = network.extract_features(F.zeros((1, 3, 100, 100)))
    ends = [steps.stem[-1], *(stage[-1].after[-1] for stage in steps.stages)]
    assert [end.shape for end in ends] == [tuple(value.shape) for value in features.values()]


class Gate(model.BasicBlock):
    """A block with an operation that goes past ``ops``."""

    where = "branch"

    def forward(self, x):
        if self.where == "input":
            return super().forward(F.sigmoid(x))
        if self.where == "output":
            return F.sigmoid(super().forward(x))
        out = self.ops.conv_norm(self.conv1, self.bn1, x, relu=True)
        out = F.sigmoid(out) if self.where == "branch" else out
        shortcut = F.sigmoid(x) if self.where == "shortcut" else x
        out = self.ops.conv_norm(self.conv2, self.bn2, out, self.downsample(shortcut), relu=True)
        return self.ops.norm(self.bn2, F.sigmoid(out)) if self.where == "end" else out


@pytest.mark.parametrize("where", ["input", "branch", "shortcut", "end", "output"])
def test_what_cannot_be_seen_is_not_drawn(where, monkeypatch):
    monkeypatch.setattr(Gate, "where", where)
    with pytest.raises(ValueError, match=r"layer1\.[01]: it computes something"):
        read(model.ResNet(Gate, (2, 1, 1, 1), 3), 32)
