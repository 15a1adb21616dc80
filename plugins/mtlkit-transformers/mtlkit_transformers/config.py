"""From the options of a spec to a config of transformers, and back to plain data that make it again.

    family, config = config_of("bert", {"hidden_size": 64}, False)
    as_data(config)      # {"vocab_size": 30522, "hidden_size": 64, ...}

A config has the keys that its kind of model declares and no others: no code, device, precision, quantisation or kernel
is chosen by one, whoever wrote it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from mtlkit.errors import nearest, shown
from mtlkit_transformers.family import FAMILIES
from mtlkit_transformers.source import Source, told

# Features are read of a whole sequence at once, by an encoder.
_FIXED = {"use_cache": False, "is_decoder": False, "add_cross_attention": False}
# Ids that only tokenizers and generation use. Of a new model's small vocabulary the defaults may be no ids.
_SPECIAL = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
# Each of so many is a module, or many; the others are widths of tensors, which take nothing until a model is counted.
_COUNTS = ("num_hidden_layers", "num_hidden_groups", "inner_group_num", "num_layers", "num_decoder_layers")
_MOST_MODULES, _MOST = 256, 10_000_000


def config_of(model: str | None, options: dict[str, Any], source: Source | None, dropout: float | None) -> Any:
    """The config of a model.

    Args:
        model: the kind, "bert" say; may be None where `source` knows it.
        options: what is set in it; the rest is the source's, or transformers' defaults with 0 for padding.
        source: of pretrained weights.
        dropout: of all layers, where it is not None.

    Raises:
        ValueError: there is no such kind of model or key, or a value is of no use.
    """
    if source and not _is_whole(model, options):
        found = source.config()
        kind = _kind(model, found.get("model_type"), source)
        known = _known(kind)
        _check_kept(source, found)
        values = {key: value for key, value in found.items() if key in known}
    else:
        kind = _kind(model)
        known = _known(kind)
        values = {"pad_token_id": FAMILIES[kind].padding or 0, **{key: None for key in _SPECIAL if key in known}}
    of = CONFIG_MAPPING[kind]
    values |= _named(of, known, options)
    _check_sizes(kind, values)
    if dropout is not None:
        values |= {key: dropout for key, value in _dropouts({**known, **values})}
    with told(f"no config of {kind!r} can be made of these values"):
        config = of(**values)
    for key, value in _FIXED.items():
        setattr(config, key, value)
    _check_padding(kind, config)
    return config


def as_data(config: Any) -> dict[str, Any]:
    """The options that make an equal config."""
    known = _known(config.model_type)
    return {key: value for key, value in config.to_dict().items() if key in known}


def _check_kept(source: Source, found: dict[str, Any]) -> None:
    """Refuse a config that means another model than is made of the keys that are kept."""
    for key in ("is_decoder", "add_cross_attention", "per_layer_config"):
        if found.get(key):
            raise ValueError(
                f"pretrained: the config of {shown(source.name)} has {key}, which is no text encoder's. Take others"
            )


def _is_whole(model: str | None, options: dict[str, Any]) -> bool:
    """Whether all of a config is said, as in a spec that was settled: then there is nothing to look up."""
    return model in FAMILIES and {*_known(model)} - {*FAMILIES[model].keys} <= {*options}


def _kind(model: str | None, found: str | None = None, source: Source | None = None) -> str:
    if source and model is not None and model != found:
        raise ValueError(f"{source.name!r} is of model {shown(found)}, found model {model!r} in the spec. Leave it out")
    kind = found if source else model
    if kind is None:
        raise ValueError("expected a model such as 'bert', or pretrained, which names one")
    if kind not in FAMILIES:
        raise ValueError(
            f"found model {shown(kind)}, expected a text encoder.{nearest(kind, [*FAMILIES])} Models: "
            f"{', '.join(FAMILIES)}"
        )
    return kind


@cache
def _known(kind: str) -> dict[str, Any]:
    """The keys of a kind of config beside those that all have, with their defaults if they have some."""
    common = {*PreTrainedConfig().to_dict(), *_FIXED} - {"pad_token_id"}
    declared = {key: value for key, value in CONFIG_MAPPING[kind]().to_dict().items() if key not in common}
    return {**declared, **dict.fromkeys(FAMILIES[kind].keys), "pad_token_id": 0}


def _named(of: Any, known: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Options by the names that a kind of config has for them: "hidden_size" is "n_embd" in GPT-2's."""
    other_names: dict[str, str] = dict(of.attribute_map)
    named = {other_names.get(key, key): value for key, value in options.items()}
    if len(named) < len(options):
        raise ValueError(f"config sets one thing twice, by two names: {', '.join(options)}")
    for key, given in zip(named, options, strict=True):
        if key not in known:
            possible = sorted({*known, *(name for name, own in other_names.items() if own in known)})
            raise ValueError(f"config.{given}: unknown key.{nearest(given, possible)} Keys: {', '.join(possible)}")
    return named


def _check_sizes(kind: str, values: dict[str, Any]) -> None:
    for key, value in values.items():
        most = _MOST_MODULES if key in _COUNTS or key in ("n_layer", "n_layers") else _MOST
        if isinstance(value, int) and value > most:
            raise ValueError(f"config.{key}: found {value:,}, expected {most:,} at most")


def _check_padding(kind: str, config: Any) -> None:
    padding, fixed = config.pad_token_id, FAMILIES[kind].padding
    if fixed is not None and padding != fixed:
        raise ValueError(
            f"config.pad_token_id: found {shown(padding)}, but model {kind!r} is written for {fixed}. Pad with "
            "that, or take another model"
        )
    if padding is None and FAMILIES[kind].counts_padding:
        raise ValueError(
            f"config.pad_token_id: found null, but model {kind!r} counts its positions from the padding id. Set one"
        )
    if padding is not None and not (type(padding) is int and 0 <= padding < config.vocab_size):
        raise ValueError(
            f"config.pad_token_id: found {shown(padding)}, expected an id below vocab_size, {config.vocab_size}, or "
            "null where every id is real"
        )


def _dropouts(values: dict[str, Any]) -> list[tuple[str, float]]:
    """The probabilities of dropping units among the values of a config; whole layers are another thing."""
    return [
        (key, value)
        for key, value in values.items()
        if "drop" in key and "layerdrop" not in key and isinstance(value, int | float) and not isinstance(value, bool)
    ]
