"""Parameters reached past modules' attributes."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .registry import Base, case, twice


@case
class TiedInAList(Base):
    def __init__(self):
        super().__init__()
        self.tied = [self.enc.weight]

    def forward(self, x):
        return self.head(F.linear(self.enc(x).tanh(), self.tied[0].t()))


@case
class ListOfParameters(Base):
    def __init__(self):
        super().__init__()
        self.ps = nn.ParameterList([nn.Parameter(torch.randn(4)) for _ in range(2)])
        self.flat = list(self.ps)

    def forward(self, x):
        return self.head((self.enc(x) * self.flat[0] + self.flat[1]).tanh())


@case
class Closure(Base):
    def __init__(self):
        super().__init__()
        weight = self.enc.weight
        self.again = lambda x: x @ weight.t()

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh()))


@case
class InADict(Base):
    def __init__(self):
        super().__init__()
        self.kept = {"w": (self.enc.weight, [self.enc.bias])}

    def forward(self, x):
        w, (b,) = self.kept["w"]
        return self.head(torch.addmm(b, self.enc(x).tanh(), w))


@case
class Partial(Base):
    def __init__(self):
        super().__init__()
        self.again = partial(F.linear, weight=self.enc.weight)

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh()))


class Holder:
    def __init__(self, weight):
        self.weight = weight


@case
class PlainObject(Base):
    def __init__(self):
        super().__init__()
        self.holder = Holder(self.enc.weight)

    def forward(self, x):
        return self.head(
            self.enc(x).tanh() @ self.holder.weight + torch.cat([self.holder.weight[0], self.holder.weight[1]])[:4]
        )


@case
class BoundMethod(Base):
    def __init__(self):
        super().__init__()
        self.scaled = self.enc.weight.mul

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.scaled(2.0))


class Memory(Base):
    """Keeps what a subclass's `kept` gives: a tensor that shares the memory of a parameter that stays where it is."""

    def double(self):
        super().double()
        self.alias = self.kept()
        return self


@case(reference=True, autograd=True)
class KeptData(Memory):
    def kept(self):
        return [self.enc.weight.data]

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.alias[0])


@case(reference=True, autograd=True)
class KeptDetached(Memory):
    def kept(self):
        return self.enc.weight.detach()

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.alias)


@case(reference=True)
class KeptView(Memory):
    def kept(self):
        return [self.enc.weight.t(), self.enc.weight[:3]]

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.alias[0]) + F.linear(x, self.alias[1])


@case(reference=True)
class ScriptedOnAListed(Base):
    def __init__(self):
        super().__init__()
        self.kept = [self.enc.weight]
        self.again = torch.jit.script(twice)

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh(), self.kept[0]))


@case(reference=True)
class KnownByIdentity(Base):
    def __init__(self):
        super().__init__()
        self.factors = {id(self.enc.weight): 2.0}

    def forward(self, x):
        return self.head((self.enc(x) * self.factors.get(id(self.enc.weight), 1.0)).tanh())


@case(reference=True)
class KnownByIdentityAlone(KnownByIdentity):
    def forward(self, x):
        return self.head((self.enc(x) * self.factors[id(self.enc.weight)]).tanh())


@case(reference=True)
class AmongOthers(Base):
    def __init__(self):
        super().__init__()
        self.scaled = [self.enc.weight]

    def forward(self, x):
        return self.head((self.enc(x) * (2 if any(self.enc.weight is w for w in self.scaled) else 1)).tanh())


@case(reference=True)
class AsksForTheClass(Base):
    def forward(self, x):
        return self.head(self.enc(x).tanh() * (2 if isinstance(self.enc.weight, nn.Parameter) else 1))


@case(reference=True)
class ByGetParameter(Base):
    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.get_parameter("enc.weight"))


@case
class ByNames(Base):
    def forward(self, x):
        named, state = dict(self.named_parameters()), self.state_dict(keep_vars=True)
        return self.head(self.enc(x).tanh() @ named["enc.weight"] @ state["enc.weight"])


@case(autograd=True)
class ByStateDict(Base):
    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.state_dict()["enc.weight"])
