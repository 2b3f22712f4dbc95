"""Cameras of RTSP, by Debian's rtsp-server-perl: cut and back again, partners by what they show."""

import json
import threading
from contextlib import ExitStack, closing

import numpy as np
import pytest
from conftest import TINY, build
from draw_moments import check_partners, read_film
from serve_rtsp import PROGRAM, RtspCamera

from sartm.inference.options import VideoOptions
from sartm.inference.predictor import Predictor
from sartm.inference.video import predict_video

pytest.importorskip("av", reason="the extra `video` is not installed")
if PROGRAM is None:
    pytest.skip("no RTSP server: apt-get install rtsp-server-perl", allow_module_level=True)


@pytest.mark.slow
def test_a_server_that_is_killed_comes_back_and_the_loss_is_listed(tmp_path):
    predictor = Predictor(build(TINY), device="cpu", precision="fp32")
    with ExitStack() as stack:
        rgb = stack.enter_context(closing(RtspCamera(warm=False, rtp_port=23_100)))
        thermal = stack.enter_context(closing(RtspCamera(warm=True, rtp_port=23_200)))
        options = VideoOptions(limit=30, tolerance=0.2, labels=True)

        def cut_in_between() -> None:
            while len(list(tmp_path.glob("*/*.png"))) < 10 and not thermal.ended.wait(0.05):
                pass
            thermal.cut(0.5)

        cut = threading.Thread(target=cut_in_between)
        cut.start()
        outcome = predict_video(
            predictor, rgb.address, thermal.address, tmp_path / "a.webm", model="m", options=options
        )
        cut.join()
    assert outcome.frames == 30
    assert thermal.starts == 2
    assert len(list((tmp_path / "a-labels").iterdir())) == 30
    told = outcome.sync["sources"][thermal.address]
    assert told["clock"] == "stream"
    ((_, seconds),) = told["losses"]
    assert 0.5 <= seconds < 15
    assert outcome.sync["sources"][rgb.address]["lost"] == 0
    written = json.loads((tmp_path / "a.json").read_text())["sync"]["sources"]
    assert [tuple(loss) for loss in written[thermal.address]["losses"]] == told["losses"]
    film = read_film(tmp_path / "a.webm")
    assert len(film) == 30
    check_partners(film, 0.25)
    assert np.diff(film[:, 1]).max() >= 0.5  # nothing is shown of the time without a partner
