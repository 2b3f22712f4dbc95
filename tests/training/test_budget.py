"""A run's length follows from its pairs or its time, and its rate has fallen when it is over."""

import json
import logging
import shutil
from dataclasses import replace

import pytest
import torch
from draw_training import draw_dataset

from sartm.cli.main import main
from sartm.config import to_dict
from sartm.training.batches import StepBatches
from sartm.training.budget import MEASURED, Schedule, suggested_steps
from sartm.training.loop import Limits, train
from sartm.training.recipes import mini
from sartm.training.runs import latest_checkpoint
from sartm.training.settings import OptimConfig, TrainConfig
from training.runs import assert_same_run, lines, losses, short


def open_run(data, steps=0, **changes) -> TrainConfig:
    """A short run that no epochs measure."""
    optim = replace(short(data).optim, epochs=0, steps=steps)
    return replace(short(data, optim=optim, validate_every=None), **changes)


def schedule(steps=600, per_step=4, val=30, **changes) -> Schedule:
    config = mini()
    config = replace(config, optim=replace(config.optim, **changes))
    return Schedule(config, 15, per_step, steps, val)


def rates_of(found: Schedule) -> list[float]:
    return [found.rate(step) for step in range(found.plan.steps)]


def test_few_pairs_are_seen_hundreds_of_times_and_thousands_a_few():
    assert suggested_steps(220, 4) == 1100
    assert suggested_steps(10, 4) == suggested_steps(60, 4) == 600
    steps = [suggested_steps(pairs, 4) for pairs in (60, 220, 1000, 10_000)]
    assert steps == sorted(steps)
    seen = [4 * steps / pairs for steps, pairs in zip(steps, (60, 220, 1000, 10_000), strict=True)]
    assert seen == sorted(seen, reverse=True)
    assert 3 < seen[-1] < 8
    assert suggested_steps(220, 16) == 275  # of larger batches fewer


def test_epochs_steps_and_pairs_say_how_many_batches_there_are():
    for optim, steps in (
        (OptimConfig(epochs=3, batch_size=4), 12),
        (OptimConfig(epochs=3, steps=7, batch_size=4), 7),
        (OptimConfig(epochs=0, batch_size=4), 600),
    ):
        assert len(StepBatches(17, optim, 1, 0, 0)) == steps


def test_the_rate_warms_up_and_falls_to_next_to_nothing():
    rates = rates_of(schedule())
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(1e-3, rel=0.06)
    assert rates.index(max(rates)) == 30
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert 0 < rates[-1] < 1e-5
    few = rates_of(schedule(steps=5))
    assert few[1:] == sorted(few[1:], reverse=True)


def test_epochs_of_a_recipe_are_as_they_were():
    from sartm.training.optimizer import learning_rate

    found = schedule(steps=300, epochs=20, warmup_epochs=1)
    assert rates_of(found) == [learning_rate(step, 15, found.config.optim) for step in range(300)]


@pytest.mark.parametrize("each", [0.02, 0.5, 6.0])
def test_on_a_machine_of_any_speed_the_rate_has_fallen_when_the_time_is_over(each):
    """Five minutes on a clock that only steps and validations move."""
    found, clock, step, rates = schedule(), 20.0, 0, []
    check = 4 * each
    while step < found.plan.steps:
        rates.append(found.rate(step))
        step, clock = step + 1, clock + each
        if found.is_due(step):
            clock += check
            found.take_down(step, float(step))
            if step < found.plan.steps:
                found.fit(step, 300 - clock, each, check, clock)
        elif step == MEASURED:
            found.fit(step, 300 - clock, each, 0.0, clock)
    assert clock <= 300
    assert rates[-1] < 0.1 * max(rates)
    assert step <= 600
    assert clock > 220 or step == 600  # of slow steps each is a share of the time


def test_a_machine_that_becomes_slower_or_faster_is_planned_for_again():
    for later in (0.3, 2.0):
        found, clock, step, each = schedule(), 10.0, 0, 0.6
        while step < found.plan.steps:
            last = found.rate(step)
            step, clock = step + 1, clock + each
            if step == MEASURED or found.is_due(step):
                clock += 1.0
                found.take_down(step, float(step))
                if step < found.plan.steps:
                    found.fit(step, 300 - clock, each, 1.0, clock)
            if step == 150:
                each = later
        assert 240 < clock < 300
        assert last < 0.08 * 1e-3


def test_first_steps_that_were_slow_by_chance_do_not_end_a_run_early():
    found, clock, step, rates = schedule(), 10.0, 0, []
    while step < found.plan.steps:
        rates.append(found.rate(step))
        step += 1
        each = 14.0 if step <= 2 else 0.6
        clock += each
        if step == 2 or found.is_short(step, 300 - clock, each):
            found.fit(step, 300 - clock, each, 0.0, clock)
        elif found.is_due(step):
            clock += 1.0
            found.take_down(step, float(step))
            if step < found.plan.steps:
                found.fit(step, 300 - clock, each, 1.0, clock)
    assert 240 < clock < 300
    assert step > 300
    assert rates[40] > 0.7 * max(rates)
    assert rates[-1] < 0.08 * max(rates)


def test_an_interval_of_validations_suits_their_cost_and_the_end_is_one():
    def due(found: Schedule) -> list[int]:
        steps = []
        for step in range(1, found.plan.steps + 1):
            if found.is_due(step):
                steps.append(step)
                found.take_down(step, float(step))
        return steps

    assert len(due(schedule())) == 12
    assert due(schedule())[-1] == 600
    many = due(schedule(steps=700, val=600))
    assert len(many) == 2
    assert many[-1] == 700
    assert due(schedule(steps=5, val=1)) == [1, 2, 3, 4, 5]


def test_a_plateau_brings_the_end_near_with_a_falling_rate():
    found, stopped = schedule(), 0
    for step in range(1, 600):
        if found.is_due(step) and found.take_down(step, 40.0 + 5 * (step > 100)):
            stopped = step
            break
    assert 240 <= stopped < 400
    assert found.plan.steps == round(1.15 * stopped)
    before, rates = found.rate(stopped - 1), [found.rate(s) for s in range(stopped, 600)]
    assert rates[0] == pytest.approx(before, rel=0.02)
    last = found.plan.steps - stopped - 1
    assert rates[last] < 0.05 * rates[0]
    assert found.gain() == 0
    rising = schedule()
    assert not any(rising.take_down(s, s / 10) for s in range(1, 600) if rising.is_due(s))
    assert rising.gain() == pytest.approx(20, abs=6)


def test_epochs_that_were_asked_for_end_on_no_plateau():
    found = schedule(epochs=40)
    assert not any(found.take_down(step, 40.0) for step in range(1, 600) if found.is_due(step))


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_by_its_plan_bit_for_bit(six, tmp_path):
    config = open_run(six, steps=20)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(config, whole, device="cpu")["steps"] == 20
    train(config, cut, limits=Limits(steps=6), device="cpu")
    assert train(config, cut, resume=True, device="cpu")["finished"]
    assert_same_run(whole, cut)


@pytest.mark.slow
def test_a_run_planned_by_time_is_repeated_from_its_checkpoint(six, tmp_path):
    """The plan is in the checkpoint: two that go on from it, in whatever time, are the same."""
    config, out = open_run(six, checkpoint_every=1000), tmp_path / "run"
    train(config, out, limits=Limits(seconds=3600, steps=MEASURED + 3), device="cpu")
    found = latest_checkpoint(out)
    assert found is not None
    plan = found.state["plan"]
    assert plan["fitted"]
    assert 0 < plan["since"] <= MEASURED + 1
    assert plan["steps"] <= suggested_steps(6, 2)
    other = shutil.copytree(out, tmp_path / "other")
    for run, seconds in ((out, 1000), (other, 2000)):
        limits = Limits(seconds=seconds, steps=MEASURED + 6)
        result = train(config, run, resume=True, limits=limits, device="cpu")
        assert result["steps"] == plan["steps"]
    assert_same_run(out, other)


@pytest.mark.slow
def test_the_time_of_epochs_that_were_asked_for_only_ends_the_session(six, tmp_path, undisturbed):
    out = tmp_path / "run"
    result = train(short(six), out, limits=Limits(seconds=0), device="cpu")
    assert (result["step"], result["steps"], result["finished"]) == (1, 18, False)
    assert train(short(six), out, resume=True, device="cpu")["finished"]
    assert losses(out) == losses(undisturbed)


def test_a_crop_is_no_larger_than_the_images_where_the_recipe_says_so(six, tmp_path):
    """96x128 pixels, of which the model sees 96x128."""
    wide = replace(short(six).augmentation, crop=(64, 320), fit_crop=True)
    out = tmp_path / "run"
    train(short(six, augmentation=wide), out, limits=Limits(steps=1), device="cpu")
    recipe = json.loads((out / "best" / "config.json").read_text())["facts"]["recipe"]
    assert recipe["augmentation"]["crop"] == [64, 128]


def commanded(config: TrainConfig, folder, *words: str) -> list[str]:
    file = folder / "recipe.json"
    file.write_text(json.dumps(to_dict(config)))
    return ["train", str(file), "--out", str(folder / "run"), "--device", "cpu", *words]


@pytest.mark.slow
def test_the_command_says_how_to_go_on_and_whether_it_is_worth_while(six, tmp_path, capsys):
    words = commanded(open_run(six, steps=9), tmp_path)
    assert main([*words, "--max-steps", "4"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    run = tmp_path / "run"
    assert f"stopped at step 4 of 9; to go on: sartm train {run} --out {run} --resume" in said
    again = said.split("to go on: sartm ")[1].split(" best on")[0]
    assert main(again.split()) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "9 steps in" in said
    assert "flat: the last third" in said or f"--init {run / 'best'} --out {run}-2" in said
    assert "thermal only" in said
    assert "hermal" in said.split("adds")[-1]
    known = [line for line in lines(run) if "modalities" in line]
    assert [line["step"] for line in known] == [9]
    more = ["train", str(run), "--init", str(run / "best"), "--out", f"{run}-2", "--max-steps", "1"]
    assert main([*more, "--set", "optim.steps=18", "--device", "cpu"]) == 0
    page = (run / "report" / "report.html").read_text()
    assert "Does thermal pay?" in page
    assert known[0]["modalities"]["sentence"] in page


@pytest.mark.slow
def test_what_is_started_from_is_said_in_words_with_its_terms(tmp_path, caplog):
    data = draw_dataset(tmp_path / "data", 4, 1)
    (data / "dataset.toml").write_text(
        (data / "dataset.toml").read_text().replace('"car"', '"vehicle"')
    )
    config = replace(mini(), data=str(data), workers=0, precision="fp32")
    with caplog.at_level(logging.INFO, "sartm"):
        train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    said = caplog.text
    assert "starting from mini-synthetic: backbone kept, heads for 9 classes new" in said
    assert "Trained on drawn scenes only" in said
    assert "weight" not in said
    assert "4 training pairs: 600 steps of 4, each is seen about 600 times" in said
    assert torch.get_default_dtype() == torch.float32
