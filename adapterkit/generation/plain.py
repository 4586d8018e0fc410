"""The page bank on a plain transformers GPT-2: ``generate``, logits processors and ``pipeline`` go on working.

The lowest layer of the engine, on somebody else's forward pass. The model's
modules, weights and names stay as they are; a hook after each module adds the
update of the adapters that the call names. Imports transformers, so nothing
imports this before it is asked for.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor

from adapterkit.errors import Unsupported, UsageProblem
from adapterkit.generation.attached import Adapters, Attached, Chosen, Hook, running
from adapterkit.generation.gpt2 import TARGETS
from adapterkit.generation.same import base_of, check_same
from adapterkit.model.base import Base
from adapterkit.registry.store import Registry

KINDS = ("Conv1D", "Linear8bitLt", "Linear4bit")  # GPT-2's own, and what bitsandbytes makes of it


def with_adapters(
    model: transformers.GPT2LMHeadModel,
    *,
    registry: Registry | Path | str | None = None,
    base: str | Path | None = None,
    force_base: bool = False,
) -> GPT2LMHeadModel:
    """The same model, whose ``forward`` and ``generate`` take ``adapter=``.

    The adapter is an argument of each call, as in ``Generator``: None or "base", a
    ref, a blend, a path, or a list with one for each row. It is never a state of the
    model: without the argument the model is what it was, bit for bit.

    Args:
        model: a GPT2LMHeadModel on one device, in fp32, bf16, fp16, 8 or 4 bits; changed in place.
        registry: a Registry, its folder, or None for the usual search.
        base: Hub id, folder or ``embedded``; None is where the model was loaded from.
        force_base: take a model, and adapters, of another base of the same sizes too.

    Raises:
        Unsupported: another kind of model, one wrapped by PEFT, or spread over devices.
        UsageProblem: it has adapters already, or does not say which base it is.
        BaseMismatch: it is not the base it is named after.
    """
    _check_kind(model)
    found = base_of(model, str(base) if base else None)
    check_same(model, found, force=force_base)
    store = registry if isinstance(registry, Registry) else Registry(registry)
    return attach(model, found, store, force_base)


def attach(model: Any, base: Base, registry: Registry, force_base: bool) -> GPT2LMHeadModel:
    """The same for a model that was just loaded from its base, and needs no check."""
    attached = Attached(registry, base, *place(model), force_base=force_base)
    for layer, block in enumerate(model.transformer.h):
        for target in TARGETS:
            block.get_submodule(target).register_forward_hook(Hook(attached, layer, target))
    model.__class__ = GPT2LMHeadModel
    model.adapters = attached
    return cast(GPT2LMHeadModel, model)


class GPT2LMHeadModel(transformers.GPT2LMHeadModel):  # type: ignore[misc]  # transformers is untyped
    """transformers' own, with ``adapter=``; of the same name, which ``pipeline`` and ``save_pretrained`` go by.

    ``adapters`` has ``load``, ``unload`` and ``versions``. ``save_pretrained`` saves the plain base.
    """

    adapters: Attached | None = None

    def forward(self, *args: Any, adapter: Adapters | Chosen = None, **kwargs: Any) -> Any:
        """As transformers', through the adapters of each row.

        Raises:
            Unsupported: in training mode, where dropout and recomputed activations would make it another adapter.
            UsageProblem: a list that is not one adapter for each row.
        """
        if self.adapters is None or adapter is None:
            return self._run(None, args, kwargs)
        if isinstance(adapter, Chosen):
            return self._run(adapter, args, kwargs)
        self._check_mode()
        with self.adapters.chosen(adapter, *place(self)) as chosen:
            return self._run(chosen, args, kwargs)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: Any = None,
        *args: Any,
        adapter: Adapters | Chosen = None,
        **kwargs: Any,
    ) -> Any:
        """As transformers', every token through the adapters of its row; beams of a row share its adapter.

        Raises:
            Unsupported: guidance_scale, assistant_model or cache_implementation="paged" beside an adapter.
            UsageProblem: a list that is not one adapter for each row.
        """
        attached = self.adapters
        if adapter is None or attached is None:
            return super().generate(inputs, generation_config, *args, **kwargs)
        if isinstance(adapter, Chosen):
            return super().generate(inputs, generation_config, *args, adapter=adapter, **kwargs)
        self._check_mode()
        _check_ways(kwargs, generation_config, self.generation_config)
        if generation_config is None:
            kwargs["disable_compile"] = True  # compiled code would be made anew for every choice of adapters
        else:
            generation_config = copy.copy(generation_config)
            generation_config.disable_compile = True
        with attached.chosen(adapter, *place(self)) as chosen:
            named = (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
            chosen.check(next((len(x) for x in named if x is not None), 1))
            chosen.may_repeat = True
            return super().generate(inputs, generation_config, *args, adapter=chosen, **kwargs)

    def generate_batch(self, *args: Any, adapter: Adapters = None, **kwargs: Any) -> Any:
        """As transformers'; it shares what it cached between requests, so there is no adapter in it."""
        if adapter is not None:
            raise _unsupported("generate_batch", "Generator does that: gen([prompt, ...], [adapter, ...])")
        return super().generate_batch(*args, **kwargs)

    def _run(self, chosen: Chosen | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.adapters is None:
            return super().forward(*args, **kwargs)
        with running(self.adapters, chosen):
            return super().forward(*args, **kwargs)

    def _check_mode(self) -> None:
        if self.training:
            raise Unsupported(
                "the model is in training mode; adapters beside it only write.",
                hint="model.eval(), or adapterkit train for another adapter",
            )


def _with_adapter(signature: inspect.Signature) -> inspect.Signature:
    """transformers reads the signature to know which arguments a forward pass takes."""
    *plain, rest = signature.parameters.values()
    own = inspect.Parameter("adapter", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*plain, own, rest])


GPT2LMHeadModel.forward.__signature__ = _with_adapter(  # type: ignore[attr-defined]
    inspect.signature(transformers.GPT2LMHeadModel.forward)
)


def place(model: Any) -> tuple[torch.device, torch.dtype]:
    """Where a model is, and in which format it computes."""
    weight = model.transformer.wte.weight  # which no quantisation touches
    return weight.device, weight.dtype


def _check_kind(model: Any) -> None:
    if isinstance(model, GPT2LMHeadModel):
        raise UsageProblem("this model has adapters beside it already.", hint="model.adapters")
    if type(model) is not transformers.GPT2LMHeadModel:
        merge = hasattr(model, "merge_and_unload")
        hint = "model.get_base_model()" if merge else "GPT2LMHeadModel.from_pretrained(...)"
        raise Unsupported(
            f"adapters go beside a GPT2LMHeadModel; this is a {type(model).__name__}.", hint=hint
        )
    for block in model.transformer.h:
        for target in TARGETS:
            kind = type(block.get_submodule(target))
            if kind.__name__ not in KINDS or "peft" in kind.__module__:
                raise Unsupported(
                    f"{target} of this model is a {kind.__module__.split('.')[0]} {kind.__name__}, not GPT-2's own.",
                    hint="load the model again; adapters of PEFT: adapterkit import FOLDER",
                )
    devices = {str(p.device) for p in model.parameters()}
    if len(devices) > 1 or "meta" in devices:
        raise Unsupported(
            f"this model lies on {', '.join(sorted(devices))}; adapters go beside one on one device.",
            hint='from_pretrained(..., device_map="cpu" or "cuda:0")',
        )


def _check_ways(kwargs: dict[str, Any], *configs: Any) -> None:
    """Refuse ways of writing whose other forward passes would run without the adapter, or mix up caches."""

    def asked(name: str) -> Any:
        return next(
            (x for x in (kwargs.get(name), *(getattr(c, name, None) for c in configs)) if x is not None), None
        )

    if asked("guidance_scale") not in (None, 1):
        raise _unsupported("guidance_scale", "a stronger style: adapter='NAME=1.5'")
    if kwargs.get("assistant_model") is not None:
        raise _unsupported("assistant_model", "prompt_lookup_num_tokens works")
    if asked("cache_implementation") == "paged":
        raise _unsupported('cache_implementation="paged"', "leave it out")


def _unsupported(what: str, hint: str) -> Unsupported:
    return Unsupported(f"{what} does not go together with adapter=.", hint=hint)
