"""Transformers' report of a loaded model: missing, unexpected and misshapen tensors.

A parameter that is missing in the files is drawn at random, differently in every process. Such a model must
not be used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SHOWN = 3
"""Number of tensors that a message names."""
ADAPTER = re.compile(r"\.(lora_\w+|base_layer)\.")
QUANTISED = re.compile(r"\.(qweight|qzeros|scales|g_idx|weight_scale\w*|weight_packed|absmax|SCB)\b")
"""Names of tensors of an adapter, and of a quantised model."""
CONSTANTS = ("bias", "masked_bias", "inv_freq", "position_ids", "version")
"""Last parts of the names of masks, frequencies and positions, which older files have inside the blocks."""


class Misfit(NamedTuple):
    """The reason why a model must not be used."""

    found: str
    """The fault, with the names of tensors."""
    advice: str
    """The remedy."""


def load_with_info(source: Path, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Return a causal LM and transformers' report of its tensors.

    `what_does_not_fit` reads the report. The report contains shapes that differ, by name; transformers would
    raise an error without the names.
    """
    import transformers

    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        source, output_loading_info=True, ignore_mismatched_sizes=True, **settings
    )
    model, loading = loaded
    return model, loading


@contextmanager
def recorded_loads() -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    """Give models that another library loads, with their reports."""
    import transformers

    found: list[tuple[Any, dict[str, Any]]] = []
    base = transformers.PreTrainedModel
    original = base.__dict__["from_pretrained"]

    def recording(kind: type, *source: Any, **settings: Any) -> Any:
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, loading = original.__func__(kind, *source, **settings | told)
        found.append((model, loading))
        return model

    # Other libraries drop the report, so that the method itself records it.
    setattr(base, "from_pretrained", classmethod(recording))  # noqa: B010
    try:
        yield found
    finally:
        setattr(base, "from_pretrained", original)  # noqa: B010


def what_does_not_fit(model: nn.Module, loading: Mapping[str, Any]) -> Misfit | None:
    """Return why a loaded model differs from its files, or None.

    `loading` is the report of `from_pretrained` with `output_loading_info`. Unexpected tensors are allowed if
    `outside` returns them, or if they are constants of older files.
    """
    missing = sorted(loading["missing_keys"])
    left_over = sorted(loading["unexpected_keys"])
    for name, in_file, expected in sorted(loading["mismatched_keys"]):
        found = f"{name} is {list(in_file)} in the files and {list(expected)} by config.json"
        return Misfit(found, "copy the config.json that was saved with these weights")
    if missing:
        beside = f"; they hold {in_words(left_over)}" if left_over else ""
        number = f"{len(missing):,} of its {len(model.state_dict()):,} tensors"
        found = f"the files lack {number}: {in_words(missing)}{beside}"
        return Misfit(found, _advice(model, left_over))
    apart = outside(model, loading)
    homeless = [name for name in left_over if name not in apart and not _is_constant(model, name)]
    if homeless:
        found = f"the files hold tensors that config.json has no place for: {in_words(homeless)}"
        return Misfit(found, _advice(model, homeless))
    return None


def outside(model: nn.Module, loading: Mapping[str, Any]) -> list[str]:
    """Return the files' tensors outside of the language model.

    A tensor belongs to the model if it is inside a block, adapted or quantised, or has the name of a
    parameter under another prefix.
    """
    names = sorted(loading["unexpected_keys"])
    prefix = _wrapper(model, names)
    return [
        name
        for name in names
        if _innermost(model, name) is None
        and not (ADAPTER.search(name) or QUANTISED.search(name))
        and not (prefix and name.startswith(prefix))
    ]


def not_finite(model: nn.Module) -> list[str]:
    """Return the names of the parameters with NaN or infinite numbers."""
    return [name for name, parameter in model.named_parameters() if not _is_finite(parameter)]


def in_words(names: Collection[str]) -> str:
    """Return the first names and the number of the others."""
    more = len(names) - SHOWN
    first = ", ".join(list(names)[:SHOWN])
    return f"{first} and {more:,} more" if more > 0 else first


def _is_finite(values: Tensor) -> bool:
    """Return whether a tensor (any shape, real) is finite."""
    return not values.numel() or bool(torch.stack(torch.aminmax(values.detach())).isfinite().all())


def _is_constant(model: nn.Module, name: str) -> bool:
    """Return whether an unexpected tensor is a constant, not a weight."""
    block = _innermost(model, name)
    if block is None or name.rsplit(".", 1)[-1] not in CONSTANTS:
        return False
    return not any(True for _ in block.parameters(recurse=False))


def _innermost(model: nn.Module, name: str) -> nn.Module | None:
    """Return a tensor's innermost module. None for the model and its base model."""
    base = getattr(model, "base_model_prefix", "")
    modules = dict(model.named_modules())
    for path in (name, f"{base}.{name}"):
        parts = path.split(".")[:-1]
        for length in range(len(parts), 0, -1):
            inside = ".".join(parts[:length])
            if inside in modules and inside != base:
                return modules[inside]
    return None


def _wrapper(model: nn.Module, names: Iterable[str]) -> str:
    """Return the prefix of most parameters in the files, or ""."""
    base = f"{getattr(model, 'base_model_prefix', '')}."
    parameters = {name for name, _ in model.named_parameters()}
    known = parameters | {name.removeprefix(base) for name in parameters}
    prefixes = Counter[str]()
    for name in names:
        dots = (dot.end() for dot in re.finditer(r"\.", name))
        prefixes.update([name[:end] for end in dots if name[end:] in known][:1])
    [(prefix, count)] = prefixes.most_common(1) or [("", 0)]
    return prefix if 2 * count > len(parameters) else ""


def _advice(model: nn.Module, names: Collection[str]) -> str:
    """Return the remedy for files with unexpected tensors of these names."""
    if any(ADAPTER.search(name) for name in names):
        return "merge the adapter into the model, and save that"
    if any(QUANTISED.search(name) for name in names):
        return "take the model that is not quantised"
    prefix = _wrapper(model, names)
    if prefix:
        return f"save the model inside its wrapper, so that no name begins with {prefix}"
    return "copy the model again, with the config.json that was saved with its weights"
