from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.cues.contact_sheet import draw_contact_sheet, write_contact_sheet
from dataset.cues.shortcut import draw_cues
from settings.images import Shortcut
from tests.dataset.small_data import make_data


@pytest.mark.parametrize(("cue", "shown"), [("patch", 3), ("gray", 2), ("none", 0)])
def test_a_contact_sheet_shows_every_cue(tmp_path, cue, shown) -> None:
    data = make_data(12, test=3, side=16, shortcut=Shortcut(cue=cue))
    sheet = draw_contact_sheet(data)
    tile = 64 + 4  # four times enlarged, with a border of the same width
    assert sheet.dtype == torch.uint8 and sheet.shape == (3, 4 + 4 * tile, 4 + 11 * tile)
    last = sheet[:, 4 + 3 * tile :: 4, 4::4][:, :16]  # every fourth pixel of the last row's tiles
    clean = data.test.load_raw(torch.tensor([0]))
    for number in range(-1, shown):  # -1 is no cue
        expected = clean if number < 0 else draw_cues(cue, clean, torch.tensor([number]), torch.tensor([0]))
        start = (1 + number) * tile // 4
        assert torch.equal(last[:, :, start : start + 16], expected[0])
    write_contact_sheet(data, tmp_path / "new" / "sheet.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), sheet.permute(1, 2, 0).numpy())
