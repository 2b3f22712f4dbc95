"""What a run changes step by step, and how it becomes a checkpoint and comes back from one."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sartm.model.sartm import SARTM
from sartm.training.criterion import Criterion


@dataclass
class Parts:
    """All state of a run that a checkpoint must hold."""

    model: SARTM
    optimizer: torch.optim.AdamW
    criterion: Criterion
    average: AveragedModel | None

    def tensors(self) -> dict[str, Tensor]:
        named = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        named |= {f"criterion/{k}": v for k, v in self.criterion.state_dict().items()}
        if self.average is not None:
            named |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                named[f"optimizer/{key}/{names[id(parameter)]}"] = torch.as_tensor(value)
        return named

    def load(self, tensors: dict[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model/"))
        self.criterion.load_state_dict(under("criterion/"))
        if self.average is not None:
            self.average.load_state_dict(under("average/"))
        parameters = dict(self.model.named_parameters())
        for key, value in under("optimizer/").items():
            kind, name = key.split("/", 1)
            self.optimizer.state[parameters[name]][kind] = value

    def validated(self) -> SARTM:
        """The model that is validated and kept."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, SARTM)
        return self.average.module
