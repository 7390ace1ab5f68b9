"""Make ONNX models for tests without the ``onnx`` package: protocol buffers by hand."""


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, dims: tuple[int, ...] = (2, 2), external: str | None = None) -> bytes:
    made = b"".join(field(1, size) for size in dims) + field(2, 1) + field(8, name)
    if external is None:
        size = 4
        for each in dims:
            size *= each
        return made + field(9, bytes(size))
    entry = field(1, "location") + field(2, external)
    return made + field(13, entry) + field(14, 1)


def node(operator: str = "MatMul", domain: str = "", attributes: bytes = b"") -> bytes:
    made = field(1, "input_ids") + field(2, "y") + field(4, operator)
    return made + attributes + (field(7, domain) if domain else b"")


def onnx(
    nodes: tuple[bytes, ...] = (node(),),
    tensors: tuple[bytes, ...] = (tensor("w"),),
    domains: tuple[str, ...] = ("",),
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
) -> bytes:
    """Return a model of these nodes and weights."""
    graph = b"".join(field(1, each) for each in nodes) + field(2, "g")
    graph += b"".join(field(5, each) for each in tensors)
    graph += b"".join(field(11, field(1, name)) for name in inputs)
    graph += field(12, field(1, "last_hidden_state"))
    opsets = b"".join(field(8, field(1, each) + field(2, 17)) for each in domains)
    return field(1, 8) + field(2, "a test") + field(7, graph) + opsets
