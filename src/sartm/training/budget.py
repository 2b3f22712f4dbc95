"""How long a run is and how its learning rate falls: by epochs, the number of pairs, or the time.

Where the time decides, steps are planned from what the first ones took, and again at every
validation, from what steps take then: the rate has fallen when the time is over, on a machine of
any and of changing speed. Every plan lies in the checkpoint written with it, so that a resumed run
has the rates of an undisturbed one.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from sartm.config import from_dict
from sartm.training.optimizer import learning_rate
from sartm.training.settings import OptimConfig, TrainConfig

SEEN, OF_PAIRS, LEAST_SEEN = 4400, 220, 2400
"""Pairs that a run of `OF_PAIRS` sees, augmented: 20 epochs of msrs268, whose last 4 gain 0.2
points. Of n pairs it sees n^(2/3) as many, so that thousands are seen fewer times each and a few
hundreds of times; never less than `LEAST_SEEN` in all."""
WARM_UP = 30
"""Most steps of warm-up of a run that no epochs measure."""
MEASURED, SLOW = 6, 10.0
"""Steps whose time a plan follows from, or fewer of so many seconds."""
VALIDATIONS = 12
"""Of a run; fewer where they would take more than `VALIDATION_SHARE` of its time."""
VALIDATION_SHARE = 0.15
LOOKED_BACK = 4
"""Validations without a gain that make a plateau."""
COOLED = 0.15
"""Of the steps so far: those in which the rate falls to 0 after a plateau."""
NOISE = 0.1
"""Points by which that gain has to exceed what was before."""
SETTLED = 0.4
"""Share of a run before which nothing is a plateau."""


def suggested_steps(pairs: int, per_step: int) -> int:
    """Optimizer steps that suit a number of training pairs, `per_step` of them in each."""
    seen: float = max(LEAST_SEEN, SEEN * (pairs / OF_PAIRS) ** (2 / 3))
    return max(1, round(seen / per_step))


def is_open(config: OptimConfig) -> bool:
    """Whether the configuration leaves the length of a run to pairs and time."""
    return not config.epochs and not config.steps


@dataclass(frozen=True)
class Plan:
    """From step `since` on, the share of the run that is done grows evenly to 1."""

    steps: int
    """Of the whole run."""
    longest: int
    """To what more time may extend it."""
    interval: int
    """Steps between validations, where no epochs say it."""
    next: int
    """Step after which the next of them is due."""
    since: int = 0
    done: float = 0.0
    """Share at `since`."""
    fitted: bool = False
    """Whether it was made for the time there is."""
    scores: tuple[tuple[int, float], ...] = ()
    """Step and headline in percent of every validation so far."""

    def share(self, step: int) -> float:
        """How much of the run is done before `step`, counted from 0."""
        left = self.steps - self.since
        return min(1.0, self.done + (1 - self.done) * (step - self.since) / left) if left else 1.0

    def ending(self, step: int, steps: int) -> "Plan":
        """The same up to `step`, and from there on so fast or slow as to end at `steps`."""
        return replace(self, steps=max(step, steps), since=step, done=self.share(step))

    def from_here(self, step: int) -> "Plan":
        """With the next validation after `step`; one shortly before the end waits for it."""
        after = step + self.interval
        late = after + self.interval / 2 >= self.steps
        return replace(self, next=max(step + 1, self.steps) if late else after)


class Schedule:
    """Which step is the last, which ones are followed by a validation, and the rate of each."""

    def __init__(
        self, config: TrainConfig, per_epoch: int, per_step: int, steps: int, val: int
    ) -> None:
        """Plan a run by its configuration.

        Args:
            config: the run's.
            per_epoch: optimizer steps in an epoch.
            per_step: training pairs in a step.
            steps: of the whole run.
            val: pairs to validate on.
        """
        self.config, self.per_epoch = config, per_epoch
        # forward only, though on whole images: a third of what training on as many pairs takes
        self.check = val / (3 * per_step)
        interval = _interval(steps, self.check)
        self.plan = Plan(steps, steps, interval, 0).from_here(0)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self.plan)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on by the plan of a checkpoint; {}: it was written before there were plans."""
        if state:
            self.plan = from_dict(Plan, state, "the checkpoint's plan")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        optim = self.config.optim
        if optim.epochs and not optim.steps:
            return learning_rate(step, self.per_epoch, optim)
        ramp = 0.1 + 0.9 * step / min(WARM_UP, max(1, self.plan.steps // 10))
        fallen: float = (1 - self.plan.share(step)) ** optim.power
        return optim.lr * min(1.0, ramp) * fallen

    def is_due(self, step: int) -> bool:
        """Whether a validation follows when `step` steps are done."""
        every = self.config.validate_every
        if every is None:
            return step >= self.plan.next
        return every > 0 and step % (every * self.per_epoch) == 0

    def is_short(self, step: int, left: float, each: float) -> bool:
        """Whether the plan, made from steps that were slow by chance, would leave half of the time
        unused; arguments as of `fit`."""
        plan = self.plan
        ends = (plan.steps - step + 3 * self.check + 1) * each
        return plan.fitted and plan.steps < plan.longest and 2 * ends < left

    def fit(self, step: int, left: float, each: float, validation: float, passed: float) -> None:
        """Plan, after `step` steps, what fits into the time.

        Args:
            step: steps that are done.
            left: seconds.
            each: seconds of a step.
            validation: seconds of one; 0: there was none yet.
            passed: seconds; where the plan was too short, they say how much of the run is done.
        """
        short = self.is_short(step, left, each)
        check = validation / each or self.check
        # what ends a run: a validation, the best model with one camera and the other, a margin
        usable = 0.97 * left / each - 3 * check - 1
        every = self.config.validate_every
        interval = _interval(step + round(usable), check)
        between = interval if every is None else every * self.per_epoch
        steps = int(usable / (1 + check / between)) if between else int(usable)
        plan = self.plan.ending(step, min(step + max(1, steps), self.plan.longest))
        if short:
            plan = replace(plan, done=min(plan.done, passed / (passed + left)))
        self.plan = replace(plan, fitted=True, interval=interval).from_here(step)

    def take_down(self, step: int, score: float | None) -> bool:
        """Note the headline of a validation; whether it ends a plateau, on which the rate falls."""
        scores = (*self.plan.scores, (step, score or 0.0))
        self.plan = plan = replace(self.plan, scores=scores).from_here(step)
        soon = step + max(1, round(COOLED * step))
        early = plan.share(step) < SETTLED or not is_open(self.config.optim)
        if early or soon >= plan.steps or not _is_flat([score for _, score in scores]):
            return False
        self.plan = replace(plan.ending(step, soon), longest=soon).from_here(step)
        return True

    def gain(self) -> float | None:
        """Points that the last third of the run added to the best score; None: nobody can tell."""
        scores = self.plan.scores
        early = [score for step, score in scores if step <= 2 / 3 * scores[-1][0]]
        return max(score for _, score in scores) - max(early) if early else None


def _interval(steps: int, check: float) -> int:
    return max(1, -(-steps // VALIDATIONS), round(check / VALIDATION_SHARE))


def _is_flat(scores: list[float]) -> bool:
    before, late = scores[:-LOOKED_BACK], scores[-LOOKED_BACK:]
    return bool(before) and max(late) < max(before) + NOISE


class Pace:
    """What steps and validations of a session take, and how much time it has left."""

    def __init__(self, begun: float, seconds: float | None) -> None:
        self.begun, self.limit = begun, seconds
        self.mark = time.monotonic()
        self.validation = 0.0
        """Seconds of the last one; 0: there was none."""
        self.begin()

    def begin(self) -> None:
        """Measure from here on: what is under way counts for nothing."""
        self.steps, self.seconds, self.mark = -1, 0.0, time.monotonic()

    def add_step(self) -> None:
        """A step ends now. The first since `begin` is slower, and is not counted."""
        now = time.monotonic()
        self.steps += 1
        self.seconds += (now - self.mark) * (self.steps > 0)
        self.mark = now

    def add_validation(self) -> None:
        """A validation ends now."""
        now = time.monotonic()
        self.validation, self.mark = now - self.mark, now

    def each(self) -> float:
        """Seconds of a step."""
        return self.seconds / max(self.steps, 1)

    def is_measured(self) -> bool:
        """Whether enough steps were timed to plan by; slow ones tell as much."""
        return self.steps >= MEASURED or (self.steps > 0 and self.seconds > SLOW)

    def passed(self) -> float:
        """Seconds of this session so far."""
        return time.monotonic() - self.begun

    def left(self) -> float:
        """Seconds until the limit."""
        return math.inf if self.limit is None else self.limit - self.passed()
