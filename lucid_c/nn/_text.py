"""Modules and mismatches as text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..checkpoints import KeyMap
    from .module import Module


def describe(module: "Module", mode: bool | None = None) -> str:
    """Return a module and all below as PyTorch prints them.

    The mode stands behind the outermost module, and behind those whose mode differs from that of
    the module around them; ``mode`` is that one's. A single layer is printed without it.
    """
    name = type(module).__name__
    if not module._is_set_up:
        return f"{name}(not set up: call super().__init__() first)"
    extra, training = module.extra_repr(), module.training
    note = "" if training is mode else "  # train" if training else "  # eval"
    lines = [
        f"({label}): {describe(child, training) if child is not None else None}"
        for label, kind, child, _ in module._entries()
        if kind == "child" and not (child is None and label == "downsample")
    ]
    if not lines:
        return f"{name}({extra}){note if mode is not None else ''}"
    body = "\n".join(([extra] if extra else []) + lines).replace("\n", "\n  ")
    return f"{name}(\n  {body}\n){note}"


def mismatch(name: str, keys: "KeyMap") -> str:
    """Return the message for a state dict that does not fit a module."""
    lines = [f"the state dict does not fit {name}:"]
    if keys.missing:
        lines.append(f"  missing ({len(keys.missing)}): {', '.join(keys.missing)}")
    if keys.unexpected:
        lines.append(f"  unexpected ({len(keys.unexpected)}): {', '.join(keys.unexpected)}")
    for target, shape, source, given in keys.misshapen:
        also = f" (as {source})" if source != target else ""
        lines.append(f"  wrong shape: {target} is {shape} in the model, {given} was given{also}")
    return "\n".join(lines)
