"""MiniLM as a judge: what means the same is near, and who else is embedded changes nothing."""

import numpy as np
import pytest

pytest.importorskip("transformers")

from cegm.lab.tasks import minilm as judging
from cegm.lab.tasks.minilm import MiniLM, minilm

TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.", "Lake", "word " * 400]

PUBLISHED = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
"""Cosines of the first three, as the manual of sentence-transformers shows them for this model."""


@pytest.fixture(scope="module")
def judge():
    if (found := minilm()) is None:
        pytest.skip("make minilm")
    return found


def test_what_means_the_same_is_as_near_as_sentence_transformers_says(judge):
    vectors = judge.embed(TEXTS)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert vectors[:3] @ vectors[:3].T == pytest.approx(np.array(PUBLISHED), abs=1e-4)


def test_other_texts_of_a_batch_change_nothing(judge, monkeypatch):
    together = judge.embed(TEXTS)
    monkeypatch.setattr(judging, "ROWS", 1)
    alone = MiniLM(judging.installed(judging.PACKAGE, "model/model.safetensors").parent).embed(TEXTS[::-1])[::-1]
    assert together == pytest.approx(alone, abs=1e-5)


def test_without_the_package_there_is_no_judge(monkeypatch):
    monkeypatch.setattr(judging, "PACKAGE", "no-such-package")
    assert judging._judge.__wrapped__() is None


def test_a_rehearsal_is_without_judge():
    with judging.left_out():
        assert minilm() is None
