"""The fields of a study file as a Markdown page, made from its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from autotune.study.study_table import json_schema

Schema = Mapping[str, Any]

HEAD = """# Study file reference

A study is one TOML or JSON file. This page lists every table and key of it. It is made from the schema that reads the
files, by `autotune schema --format markdown`; `autotune schema` prints the JSON Schema for editors. An unknown key is
an error. Keys that are not marked *required* may be left out, and an answer says what was filled in for them.
"""
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
UNBOUNDED = 1e6
"""Upper limits of real numbers from here on only keep infinity out, and are not worth a word."""


def study_reference() -> str:
    """Every table of the study file with its keys, what each takes and what it means."""
    schema = json_schema()
    paths: dict[str, list[str]] = {}
    for path, name in _tables(schema, schema["$defs"]):
        paths.setdefault(name, []).append(path)
    sections = [_section("Top level", "", schema)]
    for name, found in paths.items():
        heading = ", ".join(f"`[{path}]`" for path in found)
        sections.append(_section(heading, f"{found[0].strip('[]')}.", schema["$defs"][name]))
    return "\n".join([HEAD, *sections])


def _tables(schema: Schema, definitions: Schema) -> Iterator[tuple[str, str]]:
    """The path in a file and the definition of every table, the outer ones before those that they hold."""
    level = [("", schema)]
    while level:
        inner = [
            (f"[{prefix}{key}]" if field.get("type") == "array" else f"{prefix}{key}", name)
            for prefix, table in level
            for key, field in table["properties"].items()
            for name in _references(field)
        ]
        yield from inner
        level = [(f"{path.strip('[]')}.", definitions[name]) for path, name in inner]


def _arms(field: Schema) -> list[Schema]:
    """The kinds of values that a field may hold; null stands for a key that is left out."""
    arms = [*field.get("anyOf", ()), *field.get("oneOf", ()), *(x for x in field.get("allOf", ()) if "$ref" in x)]
    return [arm for arm in arms if arm.get("type") != "null"]


def _references(field: Schema) -> list[str]:
    """Names of the tables that a field may hold, by itself or in a list."""
    found = [field["$ref"].rsplit("/", 1)[1]] if "$ref" in field else []
    for part in (*_arms(field), *([field["items"]] if "items" in field else [])):
        found += _references(part)
    return found


def _section(heading: str, prefix: str, table: Schema) -> str:
    required = table.get("required", ())
    # the first of two ways to give a table, without which there is the other
    either = [way["required"] for way in table.get("anyOf", ())]
    lines = [f"## {heading}", "", _sentence(table["description"]), "", "| key | takes | meaning |", "|---|---|---|"]
    for key, field in table["properties"].items():
        takes = ("*required*; " if key in required else "") + _takes(field, prefix + key)
        if either and all(key in way for way in either):
            takes = f"*required*; {takes}"
        elif either and key in either[0]:
            takes = f"*required without `{either[1][0]}`*; {takes}"
        meaning = _sentence(field["description"]).replace("|", "\\|") + _default(field)
        lines.append(f"| `{key}` | {takes} | {meaning} |")
    return "\n".join([*lines, ""])


def _takes(field: Schema, path: str) -> str:
    """What a field may hold, in words."""
    if "$ref" in field:
        return f"table `[{path}]`"
    if arms := _arms(field):
        return ", or ".join(_takes(arm, path) for arm in arms)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "prefixItems" in field:
        return f"list of {len(field['prefixItems'])}: {_takes(field['prefixItems'][0], path)}"
    if field["type"] == "array":
        each = field["items"]
        return f"list of: {_takes(each, f'[{path}]' if _references(each) and 'anyOf' not in each else path)}"
    if field["type"] == "object":
        values = field["additionalProperties"]
        return f"table of: {_takes(values, path)}" if isinstance(values, dict) else "table"
    return TYPES[field["type"]] + _range(field)


def _range(field: Schema) -> str:
    """The limits of a number: ` from 1 to 8`, ` above 0`; of a text nothing."""
    least, above, most = field.get("minimum"), field.get("exclusiveMinimum"), field.get("maximum")
    said = f" from {least:,}" if least is not None else f" above {above:,}" if above is not None else ""
    if most is None or (field["type"] == "number" and most >= UNBOUNDED):
        return said
    return f"{said} to {most:,}"


def _default(field: Schema) -> str:
    """The default, where the description does not say it."""
    value = field.get("default")
    if value is None or isinstance(value, (dict, list)) or "default" in field["description"]:
        return ""
    return f" Default: `{json.dumps(value)}`."


def _sentence(text: str) -> str:
    """A description with a capital and a full stop."""
    text = text if text.startswith("`") else text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
