"""Average the weights of models that were trained one from another: a soup of checkpoints.

Source: Wortsman et al., Model soups, arXiv:2203.05482.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from sartm.model.checkpoint import save
from sartm.model.loading import load
from sartm.model.sartm import SARTM
from sartm.training.splits import join_images


def main() -> None:
    """Write the mean of two or more models; configuration and facts are those of the last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sources", type=Path, nargs="+", help="best/ of runs, the last one last")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    opened = [load(source) for source in options.sources]
    models = [model for model in opened if isinstance(model, SARTM)]
    last = models[-1] if len(models) == len(opened) else None
    if last is None or last.facts is None:
        raise SystemExit("not all of them are trained models")
    states = [model.state_dict() for model in models]
    for name, tensor in last.state_dict().items():
        same = [state[name] for state in states if name in state]
        if len(same) < len(states) or any(other.shape != tensor.shape for other in same):
            raise SystemExit(f"{name} is not alike in all of them: they are of other kinds")
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([other.double() for other in same]).mean(0))
    data: tuple[str, ...] = ()
    images: dict[str, str] = {}
    for model in models:
        if model.facts is not None:
            data, images = (
                (*data, *model.facts.data),
                join_images(images, model.facts.training_images),
            )
    facts = replace(last.facts, data=tuple(dict.fromkeys(data)), training_images=images)
    save(last, options.out, facts, full=True)


if __name__ == "__main__":
    main()
