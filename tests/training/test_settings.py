"""Whatever `--set` is told is refused in words, or is a setting that a run can be made with."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartm.cli.main import main
from sartm.config import ModelConfig, from_dict, override, to_dict
from sartm.errors import InputError
from sartm.training.loop import Limits, train
from sartm.training.recipes import RECIPES
from sartm.training.settings import AugmentationConfig, LossConfig, OptimConfig, TrainConfig
from training.runs import short

ODD = (
    "0", "-1", "1", "2", "0.5", "1.5", "-0.0", "1e-320", "1e38", "1e308", "1e999", "NaN",
    "Infinity", "-Infinity", "99999999999999999999", "9" * 400, "null", "true", '""', "none",
    "[]", "[1]", "[0,0]", "[32,64]", "[-1,5]", "[0.5,2]", "[2,0.5]", "[NaN,1]", '["a","b"]', "{}",
    '{"a":1}', "[[1,2],[3]]", "\\u0000", "é",
)  # fmt: skip
"""What a JSON value or a plain word can be, beside what a setting wants."""


def paths(values: dict[str, Any], above: str = "") -> Iterator[str]:
    """Every key of a configuration, tables too: `optim`, `optim.lr` and so on."""
    for key, value in values.items():
        yield above + key
        if isinstance(value, dict):
            yield from paths(value, f"{above}{key}.")


PATHS = tuple(paths(to_dict(RECIPES["mini"]())))


def accepts(config: TrainConfig, assignment: str) -> bool:
    """False where it is refused; every other exception is the test's."""
    try:
        override(config, [assignment])
    except InputError:
        return False
    return True


@pytest.mark.slow
def test_every_setting_takes_or_refuses_every_odd_value():
    config = RECIPES["mini"]()
    assert len(PATHS) * len(ODD) > 500
    taken = [pair for pair in product(PATHS, ODD) if accepts(config, "=".join(pair))]
    assert 300 < len(taken) < len(PATHS) * len(ODD) / 2


@pytest.mark.slow
@given(st.sampled_from(PATHS), st.text() | st.from_type(float).map(str) | st.integers().map(str)
       | st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                      lambda part: st.lists(part) | st.dictionaries(st.text(), part)
                      ).map(json.dumps))  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_set_knows_no_error_but_a_refusal(path, value):
    accepts(RECIPES["mini"](), f"{path}={value}")


SLOW = ("crop", "batch_size", "accumulate", "workers", "width", "mlp_dim", "rank", "depth", "size",
        "data", "init", "encoder", "teacher", "unlabelled", "text_encoder", "tensorboard",
        "classes", "recipe")  # fmt: skip
"""Where an odd value means much memory, other files, or other labels than the data has."""


@pytest.mark.slow
def test_a_step_with_what_was_taken_ends_in_words_if_at_all(six, tmp_path):
    """Sampled: a step takes a quarter of a second."""
    config = short(six)
    taken = [
        f"{path}={value}"
        for path, value in product(paths(to_dict(config)), ODD)
        if not set(SLOW) & set(path.split(".")) and accepts(config, f"{path}={value}")
    ]
    chosen = random.Random(0).sample(taken, 10)
    ended = 0
    for index, assignment in enumerate(chosen):
        run = override(config, [assignment])
        try:
            train(run, tmp_path / str(index), limits=Limits(steps=1), device="cpu")
        except InputError:
            continue
        ended += 1
    assert ended > 6


NUMBERS = [
    (OptimConfig(), "accumulate", 0), (OptimConfig(), "ema", 1.5), (OptimConfig(), "epochs", -1),
    (OptimConfig(), "lr", 0.0), (OptimConfig(), "warmup_epochs", -1.0),
    (OptimConfig(), "power", float("nan")), (LossConfig(), "tau", 0.0),
    (LossConfig(), "ohem", 1.1), (LossConfig(), "language_start", float("inf")),
    (AugmentationConfig(), "rotate", -3.0), (AugmentationConfig(), "crop", (0, 5)),
    (AugmentationConfig(), "scale", (2.0, 0.5)), (AugmentationConfig(), "gamma", 1e4),
    (RECIPES["mini"](), "checkpoint_every", 0), (RECIPES["mini"](), "workers", -1),
    (RECIPES["mini"](), "pictures", -1), (RECIPES["mini"](), "keep", 0),
    (RECIPES["mini"](), "validate_every", -1), (RECIPES["mini"](), "val_share", 0.0),
    (RECIPES["mini"](), "seed", -1), (RECIPES["mini"](), "unlabelled_share", 2.0),
]  # fmt: skip


@pytest.mark.parametrize(("config", "name", "value"), NUMBERS)
def test_a_number_out_of_range_is_refused_by_its_name(config, name, value):
    with pytest.raises(InputError, match=name):
        replace(config, **{name: value})


@pytest.mark.parametrize(("width", "heads"), [(100, 4), (36, 4), (64, 64), (50, 5)])
def test_a_width_that_attention_cannot_split_is_refused(width, heads):
    values = {"width": width, "decoder": {"heads": heads}}
    with pytest.raises(InputError, match=f"model.width {width} cannot be split over {heads} heads"):
        from_dict(ModelConfig, values)


@pytest.mark.parametrize("value", [2.0, True])
def test_a_choice_of_whole_numbers_takes_no_other_kind(value):
    with pytest.raises(InputError, match="every"):
        from_dict(LossConfig, {"every": value})


def test_without_a_validation_no_best_is_reported(six, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(short(six))))
    out, file = tmp_path / "run", tmp_path / "result.json"
    words = ["train", str(tmp_path / "config.json"), "--out", str(out), "--device", "cpu"]
    none = ["--set", "validate_every=0", "--max-steps", "2"]
    assert main([*words, *none, "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "-1.00" not in said
    assert "nothing was validated" in said
    assert json.loads(file.read_text())["best"] is None
    assert Path(out / "best" / "config.json").is_file()
