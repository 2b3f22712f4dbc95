"""Encoded pairs that clicks are answered on: those used last are kept, within a limit of memory."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from starlette.exceptions import HTTPException

from sartm.errors import InputError
from sartm.inference.clicks import SAM2, Mask, Promptable, Scene
from sartm.inference.predictor import Predictor
from sartm.model.released import Released
from sartm.model.sartm import SARTM

ANSWERS = 8
"""Masks of a scene that a click may go on from."""


@dataclass
class Kept:
    """One encoded pair, and the masks that were found on it last."""

    prompt: Promptable
    scene: Scene
    answers: OrderedDict[int, npt.NDArray[np.float16]] = field(default_factory=OrderedDict)
    """Logits by the number of the answer, the newest last."""
    count: int = 0
    """Answers so far."""

    @property
    def nbytes(self) -> int:
        """Memory that it holds, in bytes."""
        return self.scene.nbytes + sum(logits.nbytes for logits in self.answers.values())

    def before(self, number: int) -> npt.NDArray[np.float32]:
        """Logits of an answer.

        Raises:
            HTTPException: 404, it is kept no longer.
        """
        if number not in self.answers:
            raise HTTPException(
                404,
                f"no answer {number} of this scene: its last {ANSWERS} are kept; send the mask of "
                f"that answer as mask instead",
            )
        return self.answers[number].astype(np.float32)


class Scenes:
    """The scenes used last; only for the thread that computes, so that none is held twice."""

    def __init__(self, most: int, room: int) -> None:
        """`most` scenes, of `room` bytes together."""
        self.most, self.room = most, room
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._prompts: dict[str, Promptable] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory that they hold, in bytes."""
        return sum(kept.nbytes for kept in self._kept.values())

    def prompt_of(self, name: str, predictor: Predictor) -> Promptable:
        """A model of this name made ready for clicks, when they are asked for the first time.

        Raises:
            InputError: it answers none.
        """
        if name not in self._prompts:
            self._prompts[name] = Promptable(predictor)
        return self._prompts[name]

    def add(self, prompt: Promptable, scene: Scene) -> str:
        """Keep a scene; the id to ask for it by, which nobody can guess.

        Raises:
            InputError: it takes more memory than all may.
        """
        if scene.nbytes > self.room:
            raise InputError(
                f"clicks on this pair need {scene.nbytes / 2**20:.0f} MiB, and the service keeps "
                f"{self.room / 2**20:.0f} MiB of scenes: send a smaller image, or start the "
                f"service with a larger --scene-memory"
            )
        key = secrets.token_urlsafe(12)
        self._kept[key] = Kept(prompt, scene)
        self._drop()
        return key

    def find(self, key: str) -> Kept:
        """The scene of an id, which is the one used last now.

        Raises:
            HTTPException: 404, there is no such scene any more, and what to do.
        """
        if key not in self._kept:
            raise HTTPException(
                404,
                f"no scene {key[:50]!r}: up to {self.most} are kept in {self.room / 2**20:.0f} "
                f"MiB, those used last; send its images to /v1/scenes again",
            )
        self._kept.move_to_end(key)
        return self._kept[key]

    def keep(self, kept: Kept, mask: Mask) -> int:
        """Keep what the next click needs of a scene's newest mask; its number."""
        kept.count += 1
        kept.answers[kept.count] = mask.logits.astype(np.float16)
        if len(kept.answers) > ANSWERS:
            kept.answers.popitem(last=False)
        self._drop()
        return kept.count

    def _drop(self) -> None:
        """Forget what was used longest ago, as far as there is too much."""
        while len(self._kept) > self.most or (len(self._kept) > 1 and self.nbytes > self.room):
            self._kept.popitem(last=False)
        for kept in self._kept.values():  # one that fills the room by itself
            while len(kept.answers) > 1 and self.nbytes > self.room:
                kept.answers.popitem(last=False)


def answers_clicks(predictor: Predictor) -> bool:
    """Whether a model has, or says where there is, what clicks need."""
    model = predictor.model
    if not isinstance(model, SARTM) or isinstance(model, Released):
        return False
    of_sam2 = model.config.size in SAM2 and bool(model.encoder_source)
    return model.clicks is not None or of_sam2
