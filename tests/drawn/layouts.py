"""What stands on a picture's paper, and whether it can be read there."""

from __future__ import annotations

import itertools

from matplotlib.text import Text

from analysis.pictures import style


def drawn_texts(figure, monkeypatch):
    """Every text that the renderer really puts on paper, with its box in pixels."""
    texts = []
    original = Text.draw

    def recording(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            texts.append(self)
        return original(self, renderer, *args, **kwargs)

    with style.house_style():
        monkeypatch.setattr(Text, "draw", recording)
        figure.canvas.draw()
        monkeypatch.setattr(Text, "draw", original)
        return [(text.get_text(), text.get_window_extent()) for text in texts]


def check_layout(figure, monkeypatch):
    texts = drawn_texts(figure, monkeypatch)
    paper = figure.bbox
    for text, box in texts:
        assert box.x0 >= -0.5 and box.y0 >= -0.5, f"{text!r} leaves the paper"
        assert box.x1 <= paper.x1 + 0.5 and box.y1 <= paper.y1 + 0.5, f"{text!r} leaves the paper"
    for (text_a, a), (text_b, b) in itertools.combinations(texts, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 1 or high <= 1, f"{text_a!r} lies on {text_b!r}"
    return {text for text, _ in texts}
