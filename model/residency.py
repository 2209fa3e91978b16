"""Which weights are loaded when: components come for the calls that need them and go after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uare_rt.model.memory import MemoryOptions
    from uare_rt.model.unified import UnifiedModel

__all__ = ["ComponentLoader", "resident_bytes"]

# Small, or read where no call of a module announces it.
_ALWAYS = ("latents", "language.mot.und_norm", "language.mot.gen_norm")
_CALLED = ("vision", "codec.encoder", "codec.decoder")


class ComponentLoader:
    """Loads and releases the parts of a model around the calls of its modules.

    Args:
        model: its parameters on the meta device; those that are resident from the start are loaded here.
        fill: loads the parameters of the module at a path.
        options: see `uare_rt.model.memory.MemoryOptions`.
    """

    def __init__(self, model: UnifiedModel, fill: Callable[[str], None], options: MemoryOptions) -> None:
        self._model, self._fill = model, fill
        layers = [f"language.mot.layers.{index}" for index in range(len(model.language.mot.layers))]
        mlps = [f"{layer}.und.{part}" for layer in layers for part in ("gate", "up", "down")]
        streamed = set(mlps if options.stream_und_mlp else ())
        language = {
            part: [path for path in self._holders(part) if path not in streamed]
            for part in ("language.embed", "language.head", *layers)
        }
        decoder = [path for paths in language.values() for path in paths]
        alone = options.residency == "one"
        for part in _ALWAYS:
            self._load(self._holders(part))
        for part in _CALLED:
            if options.residency == "all":
                self._load(self._holders(part))
            else:
                self._load_for_calls(part, self._holders(part), instead_of=decoder if alone else ())
        for part, paths in language.items():
            if alone:
                self._load_at_call(part, paths)
            else:
                self._load(paths)
        for path in streamed:
            self._load_for_calls(path, [path])
        if alone or streamed:
            for layer in model.language.mot.layers:
                layer.fusable = False

    def _holders(self, part: str) -> list[str]:
        """Paths of the modules in a part that hold parameters of their own."""
        modules = self._model.get_submodule(part).named_modules(prefix=part)
        return [path for path, module in modules if next(module.parameters(recurse=False), None) is not None]

    def _load_at_call(self, part: str, paths: Sequence[str]) -> None:
        self._model.get_submodule(part).register_forward_pre_hook(lambda *_: self._load(paths))

    def _load_for_calls(self, part: str, paths: Sequence[str], instead_of: Sequence[str] = ()) -> None:
        def before(*_: object) -> None:
            self._release(instead_of)
            self._load(paths)

        module = self._model.get_submodule(part)
        module.register_forward_pre_hook(before)
        module.register_forward_hook(lambda *_: self._release(paths), always_call=True)

    def _load(self, paths: Sequence[str]) -> None:
        for path in paths:
            if next(self._model.get_submodule(path).parameters(recurse=False)).is_meta:
                self._fill(path)

    def _release(self, paths: Sequence[str]) -> None:
        for path in paths:
            module = self._model.get_submodule(path)
            for leaf, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, leaf, nn.Parameter(parameter.to("meta"), requires_grad=False))


def resident_bytes(model: nn.Module) -> int:
    """Bytes of the parameters that are loaded now."""
    return sum(parameter.nbytes for parameter in model.parameters() if not parameter.is_meta)
