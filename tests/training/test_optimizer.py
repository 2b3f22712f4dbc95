"""The learning rate, what decays, and the running mean of the weights."""

from dataclasses import replace

import pytest
import torch
from golden import listing, needed

from sartm.model.sartm import SARTM
from sartm.training.optimizer import learning_rate, make_average, make_optimizer
from sartm.training.settings import OptimConfig


@needed
def test_the_learning_rate_is_the_released_one():
    golden = listing("golden_modules.json")["warmup_poly_lr"]
    config = OptimConfig(lr=golden["lr"], epochs=500, warmup_epochs=10, power=golden["power"])
    for step, rate in golden["lr_at_step"].items():
        assert learning_rate(int(step), 74, config) == pytest.approx(rate, rel=1e-5)


def test_the_learning_rate_rises_from_a_tenth_and_then_only_falls():
    config = OptimConfig(lr=2.0, epochs=10, warmup_epochs=2)
    rates = [learning_rate(step, 5, config) for step in range(50)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(1.1)
    assert rates[10] == pytest.approx(2.0)
    assert rates[49] == pytest.approx(2.0 * (1 - 39 / 45) ** 0.9)  # 0 an epoch after the last
    assert sorted(rates[:11]) == rates[:11]
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert learning_rate(0, 5, replace(config, warmup_epochs=0)) == pytest.approx(2.0)


@pytest.mark.parametrize("epochs", [1, 2, 5, 10])
def test_a_run_shorter_than_its_warm_up_still_ends_at_a_falling_rate(epochs: int):
    config = OptimConfig(lr=1.0, epochs=epochs, warmup_epochs=10)
    rates = [learning_rate(step, 40, config) for step in range(40 * epochs)]
    highest = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.1)
    assert highest == pytest.approx(20 * epochs, abs=1)
    assert rates[-1] < 0.75 * rates[highest]
    assert sorted(rates[highest:], reverse=True) == rates[highest:]


def decayed_names(model: SARTM) -> set[str]:
    """Of what learns, the parameters that weight decay pulls to 0."""
    groups = make_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(names)
    return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}


def test_weight_decay_is_for_weights_and_adapters_not_for_biases_and_norms(tiny_model):
    decayed = decayed_names(tiny_model)
    assert {
        "auxiliary_head.predict.weight",
        "fusion.fuse.0.cross.enter_rgb.weight",
        "image_encoder.trunk.blocks.0.attn.qkv.lora_down",
        "image_encoder.trunk.blocks.0.attn.qkv.lora_up_q",
        "sam_mask_decoder.mask_tokens.weight",
        "sam_mask_decoder.output_hypernetworks_mlps.weight0",
        "sam_mask_decoder.transformer.layers.0.self_attn.q_proj.weight",
    } <= decayed
    assert [name for name in decayed if name.endswith(".bias")] == []
    norms = [
        f"{path}.weight"
        for path, module in tiny_model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
    ]
    assert "fusion.fuse.0.cross.norm_rgb.weight" in norms
    assert "fusion.fuse.0.norm.weight" in norms
    assert [name for name in norms if name in decayed] == []


def test_weight_decay_is_not_for_the_stacked_biases_of_the_hypernetworks(tiny_model):
    stacked = "sam_mask_decoder.output_hypernetworks_mlps.bias"
    assert [name for name in decayed_names(tiny_model) if name.startswith(stacked)] == []


def test_the_average_follows_the_weights_slowly(tiny_model):
    assert make_average(tiny_model, 0.0) is None
    average = make_average(tiny_model, 0.99)
    assert average is not None
    name = "auxiliary_head.predict.bias"
    expected = tiny_model.get_parameter(name).detach().clone()
    for count in range(1, 6):
        with torch.no_grad():
            tiny_model.get_parameter(name).fill_(float(count))
        average.update_parameters(tiny_model)
        keep = min(0.99, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep) * count
    torch.testing.assert_close(average.module.get_parameter(name).detach(), expected)


def test_the_trunk_learns_at_its_share_of_the_rate_and_its_adapters_at_the_whole(tiny_model):
    for parameter in tiny_model.parameters():
        parameter.requires_grad_(True)
    optimizer = make_optimizer(tiny_model, OptimConfig(encoder=0.3))
    factors = {id(p): group["factor"] for group in optimizer.param_groups for p in group["params"]}
    slow = set()
    for name, parameter in tiny_model.named_parameters():
        trunk = name.startswith("image_encoder.trunk.") and ".lora_" not in name
        assert factors[id(parameter)] == (0.3 if trunk else 1.0), name
        slow.add(trunk)
    assert slow == {True, False}
    even = make_optimizer(tiny_model, OptimConfig())
    assert {group["factor"] for group in even.param_groups} == {1.0}
