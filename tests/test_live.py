"""The chart that is redrawn while a model trains."""

import base64
import io

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from course_lib import live
from course_lib.train import History


@pytest.fixture
def published(monkeypatch):
    """What a front end would be sent, in order: (data, metadata, transient, update)."""
    shell = InteractiveShell.instance()
    sent = []

    def publish(data, metadata=None, source=None, transient=None, update=False, **_):
        sent.append((data, metadata, transient, update))

    monkeypatch.setattr(shell.display_pub, "publish", publish)
    return sent


def grow(callback, losses):
    history = History()
    for step, loss in enumerate(losses):
        history._rows.append((loss, 1.0, 0.1))
        callback(step, history)


CHART = dict(title="A title", xlabel="step", ylabel="loss in nats")


def test_every_frame_replaces_the_one_before_and_the_last_is_complete(published, monkeypatch):
    monkeypatch.setattr(live, "SECONDS_BETWEEN_FRAMES", 0.0)
    monkeypatch.setattr(live, "SHARE_OF_TIME", 1.0)
    chart = live.LiveLoss("A curve that\n falls.", **CHART)
    with chart.follow("SGD") as callback:
        grow(callback, [3.0, 2.0, 1.0])
    *frames, words = published
    assert [update for *_, update in frames] == [False, True, True, True]
    assert len({transient["display_id"] for _, _, transient, _ in frames}) == 1
    for data, metadata, _, _ in frames:
        assert data["text/plain"] == metadata["image/png"]["alt"] == "A curve that falls."
        raw = data["image/png"]
        with Image.open(io.BytesIO(raw if isinstance(raw, bytes) else base64.b64decode(raw))) as image:
            assert image.width >= metadata["image/png"]["width"] > 300
    assert "A curve that falls." in words[0]["text/html"] and words[0]["text/html"].startswith("<details>")
    np.testing.assert_array_equal(chart.curves["SGD"], [3.0, 2.0, 1.0])


def test_a_run_too_short_for_a_frame_is_drawn_at_its_end(published):
    chart = live.LiveLoss("Two curves.", **CHART)
    for name, losses in (("SGD", [3.0, 2.0]), ("AdamW", [3.0, 1.0])):
        with chart.follow(name) as callback:
            grow(callback, losses)
    assert [update for *_, update in published] == [False, False, False, False]
    assert list(chart.curves) == ["SGD", "AdamW"]


def test_an_interrupted_run_leaves_its_curve(published):
    chart = live.LiveLoss("A curve.", **CHART)
    with pytest.raises(KeyboardInterrupt), chart.follow("SGD") as callback:
        grow(callback, [3.0, 2.0])
        raise KeyboardInterrupt
    assert len(published) == 2 and len(chart.curves["SGD"]) == 2


def test_a_run_that_fails_before_its_first_step_draws_nothing(published):
    chart = live.LiveLoss("A curve.", **CHART)
    with pytest.raises(ValueError, match="no data"), chart.follow("SGD"):
        raise ValueError("no data")
    assert published == []


def test_an_empty_alt_is_refused():
    with pytest.raises(ValueError, match="alt"):
        live.LiveLoss("  ", **CHART)
