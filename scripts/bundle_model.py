"""Copy a trained model into the package: half precision, its public name and licence."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from sartm.config import override
from sartm.model.checkpoint import save
from sartm.model.loading import load
from sartm.model.sartm import SARTM

MODELS = Path(__file__).resolve().parents[1] / "src" / "sartm" / "assets" / "models"


def main() -> None:
    """Bundle one model folder under a name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="best/ of a run")
    parser.add_argument("name", help="name in sartm.load and --model")
    parser.add_argument("--licence", required=True, help="what its data allows, in a sentence")
    parser.add_argument("--output", help="logits it predicts with: decoder, auxiliary or blend")
    parser.add_argument("--command", help="how it was trained, where the run does not say it all")
    options = parser.parse_args()
    model = load(options.source)
    if not isinstance(model, SARTM) or model.facts is None:
        raise SystemExit(f"{options.source} is not a trained model")
    if options.output:
        model.config = override(model.config, [f"output={options.output}"])
    recipe = model.facts.recipe
    for key in ("data", "init", "encoder"):
        recipe[key] = Path(recipe.get(key, "")).name
    facts = replace(
        model.facts,
        name=options.name,
        licence=options.licence,
        data=tuple(dict.fromkeys(model.facts.data)),
        command=options.command or model.facts.command,
        encoder=Path(model.facts.encoder).name,
        recipe=recipe,
    )
    save(model, MODELS / options.name, facts, full=True, dtype=torch.float16)
    size = (MODELS / options.name / "model.safetensors").stat().st_size
    print(f"{MODELS / options.name}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
