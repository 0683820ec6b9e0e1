"""MLCommons Chakra's published schema as protobuf descriptors, built at run time.

Transcribed from github.com/mlcommons/chakra, schema/protobuf/et_def.proto at 6dc63e14 (Apache-2.0), the messages and
fields that an execution trace of compute and communication nodes may hold.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = (
    "double",
    "float",
    "int32",
    "int64",
    "uint32",
    "uint64",
    "sint32",
    "sint64",
    "fixed32",
    "fixed64",
    "sfixed32",
    "sfixed64",
    "bool",
    "string",
    "bytes",
)
NODE_TYPES = (
    "INVALID_NODE",
    "METADATA_NODE",
    "MEM_LOAD_NODE",
    "MEM_STORE_NODE",
    "COMP_NODE",
    "COMM_SEND_NODE",
    "COMM_RECV_NODE",
    "COMM_COLL_NODE",
)
COLLECTIVES = (
    "ALL_REDUCE",
    "REDUCE",
    "ALL_GATHER",
    "GATHER",
    "SCATTER",
    "BROADCAST",
    "ALL_TO_ALL",
    "REDUCE_SCATTER",
    "REDUCE_SCATTER_BLOCK",
    "BARRIER",
)
_NODE = (
    (1, "id", "uint64"),
    (2, "name", "string"),
    (3, "type", "NodeType"),
    (4, "ctrl_deps", "uint64*"),
    (5, "data_deps", "uint64*"),
    (6, "start_time_micros", "uint64"),
    (7, "duration_micros", "uint64"),
    (8, "inputs", "IOInfo"),
    (9, "outputs", "IOInfo"),
    (10, "attr", "AttributeProto*"),
)


def _add(message: Any, number: int, name: str, kind: str, oneof: bool = False) -> None:
    repeated, kind = kind.endswith("*"), kind.removesuffix("*")
    field = message.field.add(name=name, number=number)
    field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = getattr(_FIELD, f"TYPE_{kind.upper()}")
    else:
        field.type = _FIELD.TYPE_ENUM if kind == "NodeType" else _FIELD.TYPE_MESSAGE
        field.type_name = f".ChakraProtoMsg.{kind}"
    if oneof:
        field.oneof_index = 0


def messages() -> tuple[Any, Any]:
    """Classes of `GlobalMetadata` and `Node`."""
    file = descriptor_pb2.FileDescriptorProto(name="et_def.proto", package="ChakraProtoMsg", syntax="proto3")
    attribute = file.message_type.add(name="AttributeProto")
    attribute.oneof_decl.add(name="value")
    _add(attribute, 1, "name", "string")
    _add(attribute, 2, "doc_string", "string")
    for i, scalar in enumerate(_SCALARS):
        wrapper = f"{scalar.capitalize()}List"
        _add(attribute, 3 + 2 * i, f"{scalar}_val", scalar, oneof=True)
        _add(attribute, 4 + 2 * i, f"{scalar}_list", wrapper, oneof=True)
        _add(file.message_type.add(name=wrapper), 1, "values", f"{scalar}*")
    metadata = file.message_type.add(name="GlobalMetadata")
    _add(metadata, 1, "version", "string")
    _add(metadata, 2, "attr", "AttributeProto*")
    types = file.enum_type.add(name="NodeType")
    for number, name in enumerate(NODE_TYPES):
        types.value.add(name=name, number=number)
    info = file.message_type.add(name="IOInfo")
    for number, name in enumerate(("values", "shapes", "types"), start=1):
        _add(info, number, name, "string")
    node = file.message_type.add(name="Node")
    for number, name, kind in _NODE:
        _add(node, number, name, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"ChakraProtoMsg.{n}") for n in ("GlobalMetadata", "Node"))
    first, second = (message_factory.GetMessageClass(d) for d in found)
    return first, second
