"""What a run changes step by step, and how it becomes a checkpoint and comes back from one."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sartm.model.sartm import SARTM
from sartm.training.criterion import Criterion
from sartm.training.sharding import cut_like, whole, whole_model


@dataclass
class Parts:
    """All state of a run that a checkpoint must hold."""

    model: SARTM
    optimizer: torch.optim.AdamW
    criterion: Criterion
    average: AveragedModel | None

    def tensors(self, keep: bool = True) -> dict[str, Tensor]:
        """All of it by name. Of a model that is cut, all processes ask together; one keeps it."""
        named = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        named |= {f"criterion/{k}": v for k, v in self.criterion.state_dict().items()}
        if self.average is not None:
            named |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                named[f"optimizer/{key}/{names[id(parameter)]}"] = torch.as_tensor(value)
        # in one order on all of them, which the optimizer of a resumed run does not have
        return {name: whole(named[name], keep) for name in sorted(named)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take all of it over from a checkpoint, which has every tensor whole."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        modules: dict[str, nn.Module] = {"model/": self.model, "criterion/": self.criterion}
        if self.average is not None:
            modules["average/"] = self.average
        for prefix, module in modules.items():
            own = module.state_dict()
            found = {k: cut_like(v, own.get(k)) for k, v in under(prefix).items()}
            module.load_state_dict(found)
        parameters = dict(self.model.named_parameters())
        for key, value in under("optimizer/").items():
            kind, name = key.split("/", 1)
            parameter = parameters[name]
            cut = value if kind == "step" else cut_like(value, parameter)
            self.optimizer.state[parameter][kind] = cut

    def validated(self) -> SARTM:
        """The model that is validated and kept, whole; all processes ask for it together."""
        model = self.model if self.average is None else self.average.module
        assert isinstance(model, SARTM)
        return whole_model(model)
