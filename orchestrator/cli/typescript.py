"""TypeScript types of all that travels, made from the JSON Schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.cli import schemas
from orchestrator.protocol.error import BY_CODE

_HEAD = """\
// What travels on virtbus's subjects. Made by `virtbus schema --typescript`; changes belong into the structs it is made from.
"""

_TAIL = """

/** Everything that can be asked, by its name. */
export type Verb = keyof Verbs;

/** Verbs that change a domain; they are answered with a `Result`. */
export type Command = {{ [V in Verb]: Verbs[V]["answer"] extends Result ? V : never }}[Verb];

/** The body of a request for `V`. */
export type Request<V extends Verb> = Omit<Body, "args"> & {{ args?: Verbs[V]["args"] }};

/** The body of the answer to `V`. */
export type Reply<V extends Verb> = (V extends Command ? Result : {{ ok: true; result: Verbs[V]["answer"]; error?: undefined }}) | Refusal;

/** A subject on which `V` is answered: prefix, version, `api`, project, domain (`_`: none), verb. */
export type ApiSubject<V extends Verb> = `${{string}}.v1.api.${{string}}.${{string}}.${{V}}`;

/** Codes that a failure may bear. */
export type ErrorCode = {codes};
"""

_PLAIN = {"string": "string", "boolean": "boolean", "integer": "number", "number": "number", "null": "null", "object": "JsonObject"}


def document() -> str:
    """Return the declarations as a `.d.ts` file."""
    document = schemas.document()
    parts = [_HEAD, *_interfaces(document["$defs"]), *_verbs(document["verbs"])]
    codes = " | ".join(f'"{code}"' for code in BY_CODE)
    return "\n".join(parts) + _TAIL.format(codes=codes)


def _interfaces(definitions: Mapping[str, Any]) -> Iterator[str]:
    yield "/** An object whose fields this contract leaves open. */\nexport type JsonObject = { [name: string]: any };\n"
    for name, schema in definitions.items():
        fields = "".join(_field(field, of, field in schema["required"]) for field, of in schema["properties"].items())
        yield f"{_comment(schema['description'])}export interface {name} {{\n{fields}}}\n" if fields else (
            f"{_comment(schema['description'])}export type {name} = {{ [name: string]: never }};\n"
        )


def _verbs(verbs: Mapping[str, Any]) -> Iterator[str]:
    yield "/** What each verb takes as `args`, and what it is answered with. */\nexport interface Verbs {"
    for name, verb in verbs.items():
        args, answer = (verb[side].rpartition("/")[2] for side in ("args", "answer"))
        yield f'  /** {verb["summary"]} */\n  "{name}": {{ args: {args}; answer: {answer} }};'
    yield "}"


def _field(name: str, schema: Mapping[str, Any], required: bool) -> str:
    return f"{_comment(schema.get('description', ''), '  ')}  {name}{'' if required else '?'}: {_type(schema)};\n"


def _comment(text: str, indent: str = "") -> str:
    """Return a documentation comment, or nothing for no text."""
    lines = text.splitlines()
    if len(lines) < 2:
        return f"{indent}/** {text} */\n" if text else ""
    return "".join((f"{indent}/**\n", *(f"{indent} * {line}".rstrip() + "\n" for line in lines), f"{indent} */\n"))


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema as a type; what it does not narrow down is anything."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"Array<{_type(schema['items'])}>"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"{{ [name: string]: {_type(schema['additionalProperties'])} }}"
    return _PLAIN.get(schema.get("type", ""), "any")
