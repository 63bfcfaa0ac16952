"""Adapters made to be served as something else than what was measured, or to break whoever reads them.

Every case goes to a real server, up to where it is refused. Whatever the case: an answer that says why, nothing sealed,
nothing queued, no part and no staging file left.
"""

# ruff: noqa: E501 - a corpus reads as a table

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from factories import (
    make_adapter,
    make_config,
    make_header,
    make_tensors,
    make_training,
    make_weights,
    sha,
)
from site_under_test import Site, body, running

from registry.inspection.adapter import MAX_HEADER_BYTES
from registry.settings import Home

pytestmark = pytest.mark.slow

CONFIG, WEIGHTS, README = "adapter_config.json", "adapter_model.safetensors", "README.md"
NAME = "support-bot"
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
GOOD = make_adapter()
HEADER, SIZE = make_header(make_tensors())


class Case(NamedTuple):
    """Files, where the way ends (submit, complete), with which status and code, and words of the reason."""

    name: str
    files: dict[str, bytes]
    ends: str
    status: int
    code: str
    says: str


def refused(name: str, says: str, **files: bytes) -> Case:
    """One that passes the announcement and is refused when its files are read."""
    paths = {"config": CONFIG, "weights": WEIGHTS, "readme": README}
    changed = {paths[key]: data for key, data in files.items()}
    return Case(name, {**GOOD, **changed}, "complete", 422, "inspection_failed", says)


def unwanted(path: str, data: bytes = b"x", **changes: bytes) -> Case:
    """One with a file that is not accepted."""
    return Case(f"a file {path!r}", {**GOOD, path: data, **changes}, "submit", 422, "inspection_failed", "not accepted")


def with_header(header: Any, data: bytes = b"\x01" * SIZE, declared: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if declared is None else declared) + text + data


def one_tensor(**changes: Any) -> bytes:
    """The good weights with the first tensor's entry changed."""
    first = next(iter(HEADER))
    return with_header({name: {**entry, **changes} if name == first else entry for name, entry in HEADER.items()})


def one_name(name: str) -> bytes:
    """The good weights with the first tensor renamed."""
    first = next(iter(HEADER))
    return with_header({name if old == first else old: entry for old, entry in HEADER.items()})


def raw_config(**changes: str) -> bytes:
    """The good config with values given as JSON text."""
    text = make_config(**dict.fromkeys(changes, "HERE")).decode()
    for key, value in changes.items():
        text = text.replace(f'"{key}": "HERE"', f'"{key}": {value}')
    return text.encode()


def numbers(dtype: str, at: int, bits: int) -> bytes:
    """The good weights with one number replaced by these bits."""
    width = {"F32": 4, "F16": 2, "BF16": 2}[dtype]
    weights = bytearray(make_weights(dtype=dtype))
    start = 8 + int.from_bytes(weights[:8], "little") + at * width
    weights[start : start + width] = bits.to_bytes(width, "little")
    return bytes(weights)


def packed(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("adapter_model.safetensors", "x" * 1000)
    else:
        with tarfile.open(fileobj=out, mode=f"w:{kind}") as archive:  # type: ignore[call-overload]
            archive.addfile(tarfile.TarInfo("adapter_model.safetensors"))
    return out.getvalue()


def other_shapes(**shapes: list[int]) -> bytes:
    tensors = {**make_tensors(), **{f"{Q_PROJ}.{half}.weight": shape for half, shape in shapes.items()}}
    header, size = make_header(tensors)
    return with_header(header, b"\x01" * size)


FIRST = f"{Q_PROJ}.lora_A.weight"
PICKLE = b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."
LARGEST_HEADER = b"{" + b" " * (MAX_HEADER_BYTES - 2) + b"}"
MANY = {
    f"base_model.model.m{i}.lora_A.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    for i in range(500_000)
}

CASES = [
    # -- names of files (C6 to C10)
    unwanted("adapter_model.bin", PICKLE),
    unwanted("training_args.bin"), unwanted("optimizer.pt"), unwanted("rng_state.pth"), unwanted("model.py"),
    unwanted("tokenizer_config.json", b'{"chat_template": "{{ cycler.__init__.__globals__.os.popen(\'id\').read() }}"}'),
    unwanted("chat_template.jinja"), unwanted("tokenizer.json"), unwanted("adapter_model.safetensors.index.json"),
    unwanted("../adapter_config.json"), unwanted("/etc/passwd"), unwanted("sub/README.md"), unwanted("README.md\0"),
    unwanted("ADAPTER_CONFIG.JSON"), unwanted("adapter_config.json "), unwanted("adapter_config.json\n"),
    unwanted("adapter_confıg.json"), unwanted("..\\README.md"), unwanted("adapter.tar.gz", packed("gz")),
    Case("pickle as the only weights", {CONFIG: GOOD[CONFIG], "adapter_model.bin": PICKLE}, "submit", 422,
         "inspection_failed", "not accepted"),
    Case("no weights", {CONFIG: GOOD[CONFIG]}, "submit", 422, "inspection_failed", "missing"),
    Case("no config", {WEIGHTS: GOOD[WEIGHTS]}, "submit", 422, "inspection_failed", "missing"),
    *(refused(f"{kind} as weights", "not safetensors", weights=data) for kind, data in (
        ("pickle", PICKLE * 10), ("zip", packed("zip")), ("tar", packed("")), ("gz", packed("gz")), ("xz", packed("xz")),
        ("7z", b"7z\xbc\xaf\x27\x1c" + bytes(100)), ("gguf", b"GGUF" + bytes(100)), ("elf", b"\x7fELF" + bytes(100)),
        ("text", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), ("nothing", b""), ("a byte", b"{"),
    )),
    # -- the safetensors header (C11 to C14, C16)
    *(refused(f"a header of {declared} bytes", "not safetensors", weights=with_header(HEADER, declared=declared))
      for declared in (0, 1, 100 * 1024**2, 2**63, 2**64 - 1, len(GOOD[WEIGHTS]), len(GOOD[WEIGHTS]) - 7)),
    refused("duplicate tensors", "duplicate keys", weights=with_header(
        json.dumps(HEADER).encode()[:-1] + b', "' + FIRST.encode() + b'": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}')),
    refused("duplicate keys inside a tensor", "duplicate keys", weights=with_header(
        json.dumps(HEADER).encode().replace(b'"dtype": "F32"', b'"dtype": "F32", "dtype": "F16"', 1))),
    refused("a space before the header", "not one that safetensors loads", weights=with_header(b" " + json.dumps(HEADER).encode())),
    refused("two headers", "not valid JSON", weights=with_header(json.dumps(HEADER).encode() * 2)),
    refused("a BOM before the header", "not valid JSON", weights=with_header(b"\xef\xbb\xbf" + json.dumps(HEADER).encode())),
    refused("a header of UTF-16", "not valid JSON", weights=with_header(json.dumps(HEADER).encode("utf-16"))),
    refused("a header of brackets", "not valid JSON", weights=with_header(b'{"a": ' + b"[" * 100_000)),
    refused("a lone surrogate in the metadata", "not valid JSON", weights=with_header(
        {"__metadata__": {"a": "\ud800"}, **HEADER})),
    refused("metadata that is no text", "not one that safetensors loads", weights=with_header({"__metadata__": {"a": 1}, **HEADER})),
    refused("the largest header, empty", "holds no tensors", weights=with_header(LARGEST_HEADER, b"")),
    refused("a larger header", "not safetensors", weights=with_header(LARGEST_HEADER[:-1] + b" }", b"")),
    refused("half a million empty tensors", "not safetensors", weights=with_header(MANY, b"")),
    refused("twenty thousand and one tensors", "at most 20000", weights=with_header(
        {f"{i}": 0 for i in range(20_001)}, b"")),
    refused("shapes whose product overflows", "tensor_shape|no valid dtype", weights=one_tensor(shape=[2**32, 2**32])),
    *(refused(f"a shape {shape!r}", "no valid dtype, shape", weights=one_tensor(shape=shape))
      for shape in ([2**63, 1], [-8, -16], [8.0, 16.0], ["8", "16"], [True, 16], [0, 16], [8, None], "8x16", [[8], [16]])),
    refused("a shape of a thousand ones", "no valid dtype, shape", weights=one_tensor(shape=[8, 16] + [1] * 1000)),
    *(refused(f"offsets {offsets!r}", "no valid dtype, shape and data_offsets", weights=one_tensor(data_offsets=offsets))
      for offsets in ([512, 0], [-512, 0], [0, 2**63], [0.0, 512.0], [0], [0, 512, 512], "0-512", None)),
    refused("tensors that overlap", "gap or overlap", weights=one_tensor(data_offsets=[512, 1024])),
    refused("a tensor that spans the others", "spans", weights=one_tensor(data_offsets=[0, SIZE])),
    refused("bytes behind the end", "its header describes other", weights=with_header(HEADER, b"\x01" * (SIZE + 1000))),
    refused("fewer bytes than the header says", "its header describes other", weights=with_header(HEADER, b"\x01" * (SIZE - 4))),
    *(refused(f"numbers of type {dtype!r}", "use one of F32, F16, BF16", weights=one_tensor(dtype=dtype))
      for dtype in ("F64", "I64", "U8", "F8_E4M3", "BOOL", "f32", "F32\0", "../F32", "x" * 10_000)),
    refused("numbers of another type than said", "its shape needs other", weights=one_tensor(dtype="BF16")),
    *(refused(f"a tensor {name!r:.60}", "would not be served", weights=one_name(name)) for name in (
        "base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.embed_tokens.base_layer.weight", f"{Q_PROJ}.lora_magnitude_vector",
        f"{Q_PROJ}.lora_A.default.weight", f"{Q_PROJ}.lora_A.bias", "transformer.h.0.attn.q_proj.lora_A.weight",
        f"{FIRST}\0", f"{FIRST}\n", "../" + FIRST, "base_model.model.../q_proj.lora_A.weight",
        "base_model.model.a..q_proj.lora_A.weight", "base_model.model.\x1b[2J.lora_A.weight", "", "x" * 200_000,
        "base_model.model.modèle.q_proj.lora_A.weight", "base_model.model.q_proj\u202e.lora_A.weight",
        "base_model.model." + "a." * 400 + "q_proj.lora_A.weight",
    )),
    refused("LoRA on lm_head that the config does not name", "belongs to no module of target_modules",
            weights=one_name("base_model.model.lm_head.lora_A.weight")),
    refused("a module that the base does not have", "is not in the base",
            weights=one_name("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight")),
    refused("a module under another prefix", "is not in the base",
            weights=one_name("base_model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight")),
    refused("half a module", "both halves are needed", weights=make_weights(
        {name: shape for name, shape in make_tensors().items() if name != FIRST})),
    refused("A of another rank than B", "but r = 8", weights=other_shapes(lora_A=[4, 16])),
    refused("both of another rank than the config", "but r = 8", weights=make_weights(make_tensors(rank=16))),
    refused("narrower than the base", "but the base weight is", weights=other_shapes(lora_A=[8, 15])),
    refused("wider than the base", "but the base weight is", weights=other_shapes(lora_B=[9, 8])),
    # -- numbers
    *(refused(f"{what} of type {dtype}", "NaN or infinity", weights=numbers(dtype, at, bits)) for dtype, what, at, bits in (
        ("F32", "NaN", 0, 0x7FC00000), ("F32", "the smallest NaN", 77, 0x7F800001), ("F32", "infinity", 5, 0x7F800000),
        ("F32", "minus infinity at the end", SIZE // 4 - 1, 0xFF800000), ("F16", "NaN", 1, 0x7E01),
        ("F16", "infinity", 3, 0x7C00), ("BF16", "NaN", 9, 0x7FC0), ("BF16", "minus infinity", 2, 0xFF80),
    )),
    # -- the config (C17 to C20)
    *(refused(f"r = {value:.20}", "r = ", config=raw_config(r=value)) for value in (
        "0", "-1", "1000000000", "8.0", '"8"', "true", "null", "[8]", "1e1", "9" * 400, "512")),
    *(refused(f"lora_alpha = {value:.20}", "lora_alpha = ", config=raw_config(lora_alpha=value)) for value in (
        "1e308", "1e999", "-1", "0", '"16"', "true", "null", "9" * 400)),
    *(refused(f"lora_alpha = {value}", "is not JSON", config=raw_config(lora_alpha=value)) for value in (
        "NaN", "Infinity", "-Infinity")),
    *(refused(f"a base {value!r}", "base_model_name_or_path", config=make_config(base_model_name_or_path=value)) for value in (
        "/etc", "/etc/passwd", "http://169.254.169.254", "https://evil.example/base", "file:///etc", "../../base",
        "models/../../x", "C:\\base", "tiny\0", "~/other", "./other", 7, ["tiny"], {}, "x" * 2000)),
    refused("a key that nobody knows", "is not known", config=make_config(use_new_lora=False)),
    refused("a key with control characters", "is not known", config=make_config(**{"\x1b[31m\0": 1})),
    refused("duplicate r", "duplicate keys", config=GOOD[CONFIG].replace(b'"r": 8', b'"r": 8, "r": 16')),
    refused("a BOM", "not valid JSON", config=b"\xef\xbb\xbf" + GOOD[CONFIG]),
    refused("bytes behind the end of the config", "not valid JSON", config=GOOD[CONFIG] + b"\0"),
    refused("two configs", "not valid JSON", config=GOOD[CONFIG] * 2),
    refused("a lone surrogate", "not valid JSON", config=raw_config(peft_version='"\\ud800"')),
    refused("a config of UTF-16", "not valid JSON", config=GOOD[CONFIG].decode().encode("utf-16")),
    refused("no config but a list", "not a JSON object", config=b"[]"),
    refused("an empty config", "not valid JSON", config=b""),
    refused("a config of brackets", "not valid JSON", config=b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    refused("a number of too many digits", "not valid JSON", config=raw_config(r="9" * 100_000)),
    refused("thirty thousand unknown keys", "more than these 200 findings", config=make_config(**{f"{i}": 0 for i in range(20_000)})),
    *(refused(f"target_modules = {value!r:.30}", "target_modules", config=make_config(target_modules=value)) for value in (
        "all-linear", ".*", "(a+)+$", [], ["lm_head"], ["q_proj", "embed_tokens"], ["q_proj", ".*_proj"], ["q_proj\n"],
        ["q_proj", "c_attn"], [1], [None], [["q_proj"]], {"q_proj": 1}, True)),
    *(refused(f"{key} = {value!r}", key, config=make_config(**{key: value})) for key, value in (
        ("use_dora", True), ("use_dora", 1), ("bias", "all"), ("modules_to_save", ["lm_head"]), ("rank_pattern", {".*": 64}),
        ("alpha_pattern", {"q_proj": 1e9}), ("peft_type", "IA3"), ("task_type", "SEQ_CLS"), ("auto_mapping", {"x": "y"}),
        ("layer_replication", [[0, 4], [2, 5]]), ("trainable_token_indices", [1]), ("target_parameters", ["w"]),
        ("init_lora_weights", "pissa"), ("init_lora_weights", "olora"), ("loftq_config", {"loftq_bits": 4}),
        ("megatron_config", {"a": 1}), ("megatron_core", "os.path"), ("use_rslora", "yes"), ("use_rslora", 1),
        ("exclude_modules", "(a+)+$"), ("exclude_modules", ["(a+)+$"]), ("layers_pattern", "(a+)+$"), ("lora_dropout", 2),
        ("layers_to_transform", "0"), ("layers_to_transform", [0.5]), ("inference_mode", "false"), ("revision", "a\nb"),
        ("alora_invocation_tokens", [1]), ("lora_bias", True), ("use_qalora", True), ("use_bdlora", {"x": 1}))),
    # -- README.md
    refused("a README that is a zip", "no UTF-8 text", readme=packed("zip")),
    refused("a README with NUL", "no UTF-8 text", readme=b"# Hi\0"),
    refused("a README in Latin-1", "no UTF-8 text", readme="Modèle".encode("latin-1")),
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("attacks") / "home")) as found:
        found.create_adapter()
        with httpx.Client(base_url=found.url, timeout=30) as connection:

            def http(method: str, path: str, who: str = "admin", **request: Any) -> httpx.Response:
                """As Site.http, on one connection: the corpus is long."""
                headers = {"Authorization": f"Bearer {found.tokens[who]}"}
                return connection.request(method, path, headers=headers, **request)

            found.http = http  # type: ignore[method-assign]
            yield found


def announce(site: Site, files: dict[str, bytes], **more: Any) -> httpx.Response:
    entries = [{"path": path, "size": len(data), "sha256": sha(data)} for path, data in files.items()]
    return site.http("POST", f"/v1/adapters/{NAME}/versions", "ci", json={"files": entries, **more})


def push(site: Site, files: dict[str, bytes]) -> tuple[str, httpx.Response]:
    """The way of a version until something is refused: where it ended, and the last answer."""
    answer = announce(site, files)
    if not answer.is_success:
        return "submit", answer
    for data in files.values():
        stored = site.http("PUT", f"/v1/blobs/sha256:{sha(data)}", "ci", content=data)
        assert stored.status_code in (200, 201)
    return "complete", site.http("POST", f"/v1/adapters/{NAME}/versions/{body(answer)['number']}/complete", "ci")


def left_behind(site: Site) -> list[str]:
    """Parts of uploads and staging files."""
    folders = (site.home.blobs / "parts", site.home.staging)
    return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_adapter_that_must_not_be_served_is_refused_with_its_reason(site: Site, case: Case) -> None:
    jobs = site.registry.view().unfinished_jobs(["evaluation"])
    ends, answer = push(site, case.files)
    assert (ends, answer.status_code, body(answer)["code"]) == (case.ends, case.status, case.code), answer.text[:300]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert any(part in answer.text for part in case.says.split("|")), answer.text[:300]
    assert len(answer.content) < 100_000 and "Traceback" not in answer.text
    assert site.registry.view().unfinished_jobs(["evaluation"]) == jobs
    assert left_behind(site) == []


SERVABLE = {
    "rsLoRA": {CONFIG: make_config(use_rslora=True)},
    "half precision": {WEIGHTS: make_weights(dtype="BF16")},
    "metadata of almost a megabyte": {WEIGHTS: with_header({"__metadata__": {"a": "x" * 900_000}, **HEADER})},
    "a README with markup and terminal codes": {README: b"# <script>alert(1)</script> \x1b[31m \xe2\x80\xae"},
    "numbers as large as they get": {WEIGHTS: numbers("F32", 0, 0x7F7FFFFF)},
    "the hub's cache as base": {CONFIG: make_config(base_model_name_or_path="/x/models--org--tiny/snapshots/0a1b")},
}


@pytest.mark.parametrize("files", SERVABLE.values(), ids=SERVABLE)
def test_what_only_looks_odd_is_accepted(site: Site, files: dict[str, bytes]) -> None:
    ends, answer = push(site, {**GOOD, **files})
    assert (ends, answer.status_code, body(answer)["state"]) == ("complete", 200, "submitted"), answer.text[:300]


@pytest.mark.parametrize(
    ("weights", "codes"),
    [
        (make_weights(fill=0), ["no_effect"]),
        (
            make_weights({name: shape for name, shape in make_tensors().items() if "q_proj" in name}),
            ["modules_not_covered"],
        ),
        (make_weights(), []),
    ],
    ids=["all zero", "fewer modules than the config says", "as it should be"],
)
def test_what_the_reader_of_a_report_should_know_is_a_warning(site: Site, weights: bytes, codes: list[str]) -> None:
    """An adapter that equals its base is accepted and flagged (C15)."""
    ends, answer = push(site, {**GOOD, WEIGHTS: weights})
    assert (ends, answer.status_code) == ("complete", 200)
    findings = body(site.http("GET", f"/v1/adapters/{NAME}/versions/{body(answer)['number']}", "ci"))["findings"]
    assert [(one["code"], one["severity"]) for one in findings] == [(code, "warning") for code in codes]


# -- what was announced and what came ----------------------------------------------------------------------------


def test_a_file_that_is_missing_is_named_when_the_version_is_completed(site: Site) -> None:
    """C25."""
    files = make_adapter(fill=41)
    made = announce(site, files)
    site.http("PUT", f"/v1/blobs/sha256:{sha(files[CONFIG])}", "ci", content=files[CONFIG])
    answer = site.http("POST", f"/v1/adapters/{NAME}/versions/{body(made)['number']}/complete", "ci")
    assert (answer.status_code, body(answer)["code"]) == (422, "inspection_failed")
    assert body(answer)["problems"] == [sha(files[WEIGHTS])]


@pytest.mark.parametrize("size", [0, 1, len(GOOD[WEIGHTS]) - 1, len(GOOD[WEIGHTS]) + 1])
def test_sizes_that_were_announced_wrongly_are_found_at_the_end(site: Site, size: int) -> None:
    """C27: what is said about a file never counts more than the file."""
    entries = [{"path": path, "size": len(data), "sha256": sha(data)} for path, data in make_adapter(fill=42).items()]
    entries[1]["size"] = size
    made = site.http("POST", f"/v1/adapters/{NAME}/versions", "ci", json={"files": entries})
    for data in make_adapter(fill=42).values():
        site.http("PUT", f"/v1/blobs/sha256:{sha(data)}", "ci", content=data)
    answer = site.http("POST", f"/v1/adapters/{NAME}/versions/{body(made)['number']}/complete", "ci")
    assert (answer.status_code, body(answer)["code"]) == (422, "inspection_failed") and "announced" in answer.text


def test_a_training_record_of_another_base_is_refused(site: Site) -> None:
    """C19 and C27."""
    record = msgspec.to_builtins(make_training()) | {"base": "sha256:" + "9" * 64}
    answer = announce(site, make_adapter(fill=43), training=record)
    assert (answer.status_code, body(answer)["code"]) == (422, "inspection_failed")
    assert "push it to an adapter of its own base" in answer.text


@pytest.mark.parametrize(
    ("path", "size"), [(README, 1024**3), (README, 1024**2 + 1), (CONFIG, 256 * 1024 + 1), (WEIGHTS, 4 * 1024**3 + 1)]
)
def test_a_file_announced_over_the_limit_of_its_kind_is_refused_before_a_byte_is_sent(
    site: Site, path: str, size: int
) -> None:
    entries = {path: {"path": path, "size": len(data), "sha256": sha(data)} for path, data in GOOD.items()}
    entries[path] = {"path": path, "size": size, "sha256": "5" * 64}
    answer = site.http("POST", f"/v1/adapters/{NAME}/versions", "ci", json={"files": list(entries.values())})
    assert (answer.status_code, body(answer)["code"]) == (413, "too_large") and path in answer.text


@pytest.mark.parametrize(
    "files",
    [
        [],
        [{"path": CONFIG, "size": 1, "sha256": "0" * 64}] * 2,
        [{"path": CONFIG, "size": 1, "sha256": "0" * 64}] * 17,
        [{"path": CONFIG, "size": -1, "sha256": "0" * 64}],
        [{"path": CONFIG, "size": 1.5, "sha256": "0" * 64}],
        [{"path": CONFIG, "size": 2**63, "sha256": "0" * 64}],
        [{"path": CONFIG, "size": 1, "sha256": "0" * 63}],
        [{"path": CONFIG, "size": 1, "sha256": "A" * 64}],
        [{"path": CONFIG, "size": 1, "sha256": "0" * 64 + "\n"}],
        [{"path": CONFIG, "size": 1, "sha256": "../" + "0" * 61}],
        [{"path": "", "size": 1, "sha256": "0" * 64}],
        [{"path": "x" * 300, "size": 1, "sha256": "0" * 64}],
        [{"path": CONFIG, "size": 1, "sha256": "0" * 64, "url": "http://169.254.169.254/"}],
        [{"path": CONFIG, "size": 1}],
        [None],
        {"path": CONFIG},
    ],
    ids=lambda files: str(files)[:60],
)
def test_an_announcement_that_makes_no_sense_is_refused(site: Site, files: Any) -> None:
    answer = site.http("POST", f"/v1/adapters/{NAME}/versions", "ci", json={"files": files})
    assert answer.status_code == 422 and answer.headers["Content-Type"] == "application/problem+json"


def test_the_same_files_are_the_same_version_and_a_revoked_one_stays_revoked(site: Site) -> None:
    """C23 and C24: a version's bytes never change, and nothing brings a revoked one back."""
    files = make_adapter(fill=44)
    _, first = push(site, files)
    again = announce(site, files)
    assert (again.status_code, body(again)["number"], body(again)["missing"]) == (200, body(first)["number"], [])
    other = announce(site, {**files, README: b"other bytes"})
    assert (other.status_code, body(other)["number"]) == (201, body(first)["number"] + 1)
    site.client("release-manager").revoke(body(first)["ref"], "it leaks")
    back = announce(site, files)
    assert (back.status_code, body(back)["code"]) == (409, "revoked") and "revoked for good" in back.text


# -- names (C1 to C5) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../x", "..", ".", "a/../b", "a/b/c", "/support-bot", "support-bot/", "support_bot", "Support-Bot", "support-bot\n",
        "support-bot\0", "support bot", "supp\u00f6rt-bot", "\u212aelvin", "\uff53upport-bot", "support\u2010bot",
        "suppo\u200brt-bot", "-bot", "bot-", "x" * 255, "x" * 256, "x" * 64, "latest", "schema", "con", "team/approved",
        "7", "team/7", "", "%2e%2e", "a%2fb", "bot@approved", "sha256:" + "0" * 64,
    ],
)  # fmt: skip
def test_a_name_that_is_no_name_is_refused(site: Site, name: str) -> None:
    request = {"name": name, "base": {"id": "tiny", "digest": "sha256:" + "1" * 64}}
    answer = site.http("POST", "/v1/adapters", json=request)
    assert (answer.status_code, body(answer)["code"]) == (422, "invalid_request"), answer.text
    assert [one.name for one in site.client("admin").adapters()] == [NAME]
