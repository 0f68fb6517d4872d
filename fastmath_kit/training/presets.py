"""Presets: flat YAML files of TRL's own field names, parsed strictly.

    preset = load_preset("sft_tiny", sft_fields(), overrides={"num_train_epochs": 1})

A preset is a file beside `fastmath_kit/presets/` or a path. It holds fields of TRL's config classes
and nothing else, so it also runs under `trl sft --config` and `trl grpo --config`; those ignore
unknown keys, this loader refuses them before a GPU is rented.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from fastmath_kit.errors import ConfigError, unknown_name


def preset_names() -> list[str]:
    """Returns the names of the presets in this package."""
    folder = resources.files("fastmath_kit") / "presets"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name[-5:] == ".yaml")


def field_types(*configs: type) -> dict[str, str]:
    """Returns name -> type as text of all fields of some dataclasses."""
    return {
        field.name: field.type if isinstance(field.type, str) else _type_name(field.type)
        for config in configs
        for field in dataclasses.fields(config)
    }


def load_preset(
    name: str | Path, known: Mapping[str, str], *, overrides: Mapping[str, object] | None = None
) -> dict:
    """Returns a preset's fields with the overrides applied.

    Args:
        name: Name of a preset of this package, or the path of a YAML file.
        known: Legal fields, from `field_types`.
        overrides: Fields that win over the file's.

    Raises:
        ConfigError: unknown preset or field, with the nearest known name, or a value of the wrong
            type.
    """
    import yaml

    source = _preset_file(name)
    try:
        values = yaml.safe_load(source.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not YAML ({error}).") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected lines such as `learning_rate: 1.0e-5`.")
    values |= overrides or {}
    for field, value in values.items():
        _check_field(source.name, field, value, known)
    return values


def parse_overrides(pairs: Iterable[str]) -> dict:
    """Parses `["learning_rate=1.0e-5"]`, values as YAML.

    >>> parse_overrides(["max_steps=2", "report_to=none"])
    {'max_steps': 2, 'report_to': 'none'}
    """
    import yaml

    overrides = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set takes key=value, got {pair!r}.")
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {pair}: the value is not YAML.") from error
    return overrides


def _preset_file(name: str | Path):
    if Path(name).suffix in {".yaml", ".yml"}:
        if not Path(name).is_file():
            raise ConfigError(f"{name}: no such preset file. Known: {', '.join(preset_names())}.")
        return Path(name)
    if str(name) not in preset_names():
        raise ConfigError(unknown_name("preset", str(name), preset_names()))
    return resources.files("fastmath_kit") / "presets" / f"{name}.yaml"


def _check_field(source: str, field: str, value: object, known: Mapping[str, str]) -> None:
    if field not in known:
        raise ConfigError(f"{source}: {unknown_name('field', str(field), known)}")
    expected = known[field]
    numeric = "float" in expected or "int" in expected
    if isinstance(value, str) and "str" not in expected and numeric:
        raise ConfigError(
            f"{source}: {field} is {expected}, got the text {value!r}. "
            "YAML reads 1e-6 as text: write 1.0e-6."
        )
    if isinstance(value, bool) and "bool" not in expected:
        raise ConfigError(
            f"{source}: {field} is {expected}, got {value!r}. "
            'YAML reads no and off as false: write "no".'
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool) and expected == "bool":
        raise ConfigError(f"{source}: {field} is bool, got {value!r}. Write true or false.")


def _type_name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
