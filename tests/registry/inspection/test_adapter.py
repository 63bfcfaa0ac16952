"""Adapters that would be served wrongly, late or not at all, and files made by strangers."""

import json
import struct
import sys
import time
from typing import Any

import pytest
import safetensors
from factories import BASE_TENSORS, make_adapter, make_config, make_header, make_tensors, make_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.vllm_process import LORA_MODULES
from registry.inspection.adapter import (
    MAX_CONFIG_BYTES,
    MAX_FINDINGS,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    AdapterFiles,
    header_size,
    inspect,
    parse_strictly,
    spans_of,
)
from registry.inspection.lora_config import SERVED_MODULES, check_config
from registry.records import Finding

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
GOOD_HEADER, GOOD_SIZE = make_header(make_tensors())


def inspected(
    config: bytes | None = None,
    header: dict[str, Any] | bytes | None = None,
    *,
    size: int | None = None,
    base: Any = BASE_TENSORS,
    **changes: Any,
) -> list[Finding]:
    """The findings on a servable adapter, but for what is named; `changes` are config keys."""
    text = header if isinstance(header, bytes) else json.dumps(GOOD_HEADER if header is None else header).encode()
    config = make_config(**changes) if config is None else config
    sizes = {CONFIG: len(config), WEIGHTS: 8 + len(text) + GOOD_SIZE if size is None else size}
    return inspect(AdapterFiles(sizes, config, text, base))


def errors(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings if finding.severity == "error"]


def tensors_of(**changes: Any) -> dict[str, Any]:
    """The good header with its first tensor changed."""
    first = next(iter(GOOD_HEADER))
    return {name: {**tensor, **changes} if name == first else tensor for name, tensor in GOOD_HEADER.items()}


def renamed(old: str, new: str) -> dict[str, Any]:
    return {name.replace(old, new): tensor for name, tensor in GOOD_HEADER.items()}


# -- what is fine -------------------------------------------------------------------------------------------------


def test_an_adapter_as_peft_saves_it_has_no_findings() -> None:
    assert inspected() == []


def test_every_field_that_peft_writes_by_default_is_known() -> None:
    """As saved by peft 0.21."""
    defaults = {
        "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None, "auto_mapping": None,
        "base_model_name_or_path": "x", "corda_config": None, "ensure_weight_tying": False, "eva_config": None,
        "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "layer_replication": None, "layers_pattern": None, "layers_to_transform": None, "loftq_config": {},
        "lora_bias": False, "lora_dropout": 0.05, "megatron_config": None, "megatron_core": "megatron.core",
        "modules_to_save": None, "peft_version": "0.21.0", "qalora_group_size": 16, "rank_pattern": {},
        "revision": None, "target_parameters": None, "trainable_token_indices": None, "use_dora": False,
        "use_qalora": False, "use_rslora": True,
    }  # fmt: skip
    assert inspected(**defaults) == []


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_weights_in_each_served_type_are_accepted(dtype: str) -> None:
    weights = make_weights(dtype=dtype)
    length = header_size(weights[:8], len(weights))
    assert inspected(header=weights[8 : 8 + length], size=len(weights)) == []


def test_metadata_and_padding_as_safetensors_writes_them_are_accepted() -> None:
    text = json.dumps({"__metadata__": {"format": "pt"}, **GOOD_HEADER}).encode()
    assert inspected(header=text + b" " * (-len(text) % 8)) == []


def test_a_rank_that_the_engine_pads_is_a_warning_only() -> None:
    header, size = make_header(make_tensors(rank=12))
    text = json.dumps(header).encode()
    findings = inspected(header=text, size=8 + len(text) + size, r=12)
    assert [(one.code, one.severity) for one in findings] == [("rank_padded", "warning")]
    assert "padded to 16" in findings[0].message


def test_a_base_without_shapes_is_a_warning_only() -> None:
    findings = inspected(base=None)
    assert [(one.code, one.severity) for one in findings] == [("base_shapes_unknown", "warning")]


# -- layout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["adapter_model.bin", "model.pt", "tokenizer.json", "../adapter_config.json", "x/README.md", "readme.md", ""],
)
def test_a_file_that_is_not_needed_is_not_accepted(path: str) -> None:
    sizes = {CONFIG: 10, WEIGHTS: 10, path: 10}
    assert [one.code for one in inspect(AdapterFiles(sizes, b"", b"", None))] == ["file_not_accepted"]


def test_what_is_missing_is_named_and_nothing_is_parsed() -> None:
    assert errors(inspect(AdapterFiles({"README.md": 1}, b"{", b"{", None))) == ["file_missing", "file_missing"]


def test_a_config_over_the_limit_is_not_read() -> None:
    sizes = {CONFIG: MAX_CONFIG_BYTES + 1, WEIGHTS: 10}
    assert errors(inspect(AdapterFiles(sizes, b"not read", b"not read", None))) == ["config_too_large"]


# -- config -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True), ("use_dora", 1), ("use_dora", 0), ("use_dora", "false"), ("use_qalora", True),
        ("bias", "all"), ("bias", "lora_only"),
        ("lora_bias", True), ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("modules_to_save", ["embed_tokens"]), ("trainable_token_indices", [1]), ("target_parameters", ["w"]),
        ("alora_invocation_tokens", [1]), ("layer_replication", [[0, 1]]), ("loftq_config", {"loftq_bits": 4}),
        ("rank_pattern", {"q_proj": 4}), ("alpha_pattern", {"q_proj": 4}), ("peft_type", "IA3"), ("peft_type", "lora"),
        ("task_type", "SEQ_CLS"), ("task_type", None), ("corda_config", {}), ("ensure_weight_tying", True),
    ],
)  # fmt: skip
def test_what_the_engine_does_not_serve_is_refused_with_its_name(key: str, value: object) -> None:
    findings = inspected(**{key: value})
    assert errors(findings) == ["not_servable"] and key in findings[0].message


@pytest.mark.parametrize("rank", [0, -1, 257, 512, 8.0, "8", True, None, [8], 10**400])
def test_a_rank_out_of_range_or_of_another_type_is_refused(rank: object) -> None:
    assert "rank" in errors(inspected(r=rank))


def test_a_missing_rank_is_refused() -> None:
    assert "rank" in errors(inspected(r=...))


@pytest.mark.parametrize("alpha", ["0", "-1", "1e7", "1e999", "true", "null", '"16"', "[16]", "1" + "0" * 400])
def test_an_alpha_that_is_no_positive_number_is_refused(alpha: str) -> None:
    config = make_config(lora_alpha="HERE").replace(b'"HERE"', alpha.encode())
    assert errors(inspected(config)) == ["alpha"]


@pytest.mark.parametrize("init", ["pissa", "olora", "corda", "loftq", "pissa_niter_4", 1, None, ["gaussian"]])
def test_an_initialisation_that_changes_the_base_is_refused(init: object) -> None:
    assert errors(inspected(init_lora_weights=init)) == ["init"]


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_an_initialisation_that_leaves_the_base_alone_is_fine(init: object) -> None:
    assert inspected(init_lora_weights=init) == []


def test_a_key_that_nobody_knows_is_refused() -> None:
    assert errors(inspected(use_new_lora=False)) == ["config_unknown"]


@pytest.mark.parametrize("key", ["peft_type", "target_modules"])
@pytest.mark.parametrize("value", [..., None])
def test_a_config_without_its_type_or_targets_is_refused(key: str, value: object) -> None:
    assert "config_missing" in errors(inspected(**{key: value}))


@pytest.mark.parametrize(
    "targets", ["all-linear", "(a+)+$", [], [1], ["q_proj", None], [["q_proj"]], {}, 7, ["q_proj", 1]]
)
def test_targets_are_a_list_of_plain_names(targets: object) -> None:
    assert "target_modules" in errors(inspected(target_modules=targets))


@pytest.mark.parametrize("name", ["lm_head", "model.lm_head", "embed_tokens"])
def test_lora_on_head_or_embeddings_is_refused(name: str) -> None:
    findings = inspected(target_modules=["q_proj", "up_proj", name])
    assert errors(findings) == ["target_modules"] and name.rpartition(".")[2] in findings[0].message


# -- tensors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.bias",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.modèle.lora_A.weight",
        "base_model.model.a\n.lora_A.weight",
        "base_model.model." + "a" * 301 + ".lora_A.weight",
        "",
    ],
)
def test_a_tensor_that_would_not_be_served_is_refused_by_name(name: str) -> None:
    header = {name if old == f"{Q_PROJ}.lora_A.weight" else old: tensor for old, tensor in GOOD_HEADER.items()}
    text = json.dumps(header).encode()
    assert errors(inspected(header=text)) == ["tensor_name", "tensor_half"]


def test_a_tensor_of_no_target_module_is_refused() -> None:
    assert errors(inspected(target_modules=["q_proj"])) == ["tensor_untargeted"] * 2


def test_a_module_that_the_base_does_not_have_is_refused() -> None:
    findings = inspected(header=renamed("layers.0.self_attn", "layers.9.self_attn"))
    assert errors(findings) == ["module_unknown"] * 2


def test_half_a_module_is_refused() -> None:
    header, size = make_header({name: s for name, s in make_tensors().items() if name != f"{Q_PROJ}.lora_B.weight"})
    text = json.dumps(header).encode()
    assert errors(inspected(header=text, size=8 + len(text) + size)) == ["tensor_half"]


def test_an_adapter_without_tensors_is_refused() -> None:
    assert errors(inspected(header={})) == ["no_tensors"]


def test_a_rank_that_differs_from_the_tensors_is_refused_for_each_of_them() -> None:
    assert errors(inspected(r=16)) == ["tensor_rank"] * 4


@pytest.mark.parametrize("shape", [[8, 32], [8, 8]])
def test_a_tensor_that_does_not_fit_the_base_weight_is_refused(shape: list[int]) -> None:
    header, size = make_header({**make_tensors(), f"{Q_PROJ}.lora_A.weight": shape})
    text = json.dumps(header).encode()
    assert errors(inspected(header=text, size=8 + len(text) + size)) == ["tensor_shape"]


@pytest.mark.parametrize("weight", [[8], [8, 16, 1], []])
def test_a_base_weight_that_is_no_matrix_takes_no_adapter(weight: list[int]) -> None:
    base = {**BASE_TENSORS, "model.layers.0.self_attn.q_proj.weight": weight}
    assert errors(inspected(base=base)) == ["tensor_shape"] * 2


@pytest.mark.parametrize(
    "shape",
    [None, [], [8], [8, 16, 1], [8, 0], [0, 16], [-8, -16], [8.0, 16], ["8", 16], [True, 16], {}, "8", [2**32, 16]],
)
def test_a_shape_that_is_none_is_refused(shape: object) -> None:
    assert "tensor_shape" in errors(inspected(header=tensors_of(shape=shape)))


@pytest.mark.parametrize("dtype", ["F64", "I8", "U8", "F8_E4M3", "BOOL", "f32", ""])
def test_weights_of_another_type_are_refused(dtype: str) -> None:
    assert errors(inspected(header=tensors_of(dtype=dtype))) == ["tensor_dtype"]


@pytest.mark.parametrize(
    "changes",
    [
        {"data_offsets": None}, {"data_offsets": [0]}, {"data_offsets": [0, 512, 1024]}, {"data_offsets": [512, 0]},
        {"data_offsets": [-512, 0]}, {"data_offsets": [0.0, 512.0]}, {"data_offsets": ["0", "512"]},
        {"data_offsets": [False, 512]}, {"data_offsets": [0, 2**63]}, {"dtype": None}, {"dtype": 32}, {"more": 1},
    ],
)  # fmt: skip
def test_a_header_entry_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    assert "tensor_layout" in errors(inspected(header=tensors_of(**changes)))


@pytest.mark.parametrize("entry", [None, 1, "x", [], {}])
def test_a_header_entry_that_is_no_object_is_refused(entry: object) -> None:
    first = next(iter(GOOD_HEADER))
    assert "tensor_layout" in errors(inspected(header={**GOOD_HEADER, first: entry}))


def test_data_that_overlaps_is_refused() -> None:
    """Every tensor fits its shape and the data has no gap, but two tensors share their bytes."""
    header = {name: dict(tensor) for name, tensor in GOOD_HEADER.items()}
    first, second = header[f"{Q_PROJ}.lora_A.weight"]["data_offsets"], header[f"{Q_PROJ}.lora_B.weight"]["data_offsets"]
    shared = second[1] - second[0]
    for tensor in header.values():
        if tensor["data_offsets"][0] >= first[1]:
            tensor["data_offsets"] = [offset - shared for offset in tensor["data_offsets"]]
    text = json.dumps(header).encode()
    assert errors(inspected(header=text, size=8 + len(text) + GOOD_SIZE - shared)) == ["tensor_layout"]


def test_data_with_a_gap_is_refused() -> None:
    """A place to hide bytes that no tensor owns."""
    header = {
        name: {**tensor, "data_offsets": [offset + 64 for offset in tensor["data_offsets"]]}
        for name, tensor in GOOD_HEADER.items()
    }
    text = json.dumps(header).encode()
    assert errors(inspected(header=text, size=8 + len(text) + GOOD_SIZE + 64)) == ["tensor_layout"]


@pytest.mark.parametrize("by", [-1, 1, -GOOD_SIZE, 1000])
def test_a_file_that_is_cut_off_or_has_more_behind_its_end_is_refused(by: int) -> None:
    size = 8 + len(json.dumps(GOOD_HEADER)) + GOOD_SIZE + by
    assert errors(inspected(size=size)) == ["tensor_layout"]


def test_a_span_that_differs_from_its_shape_is_refused() -> None:
    header = {name: {**tensor, "dtype": "F16"} for name, tensor in GOOD_HEADER.items()}
    assert errors(inspected(header=header)) == ["tensor_layout"] * 4


def test_too_many_tensors_are_refused() -> None:
    header = {f"t{i}": 0 for i in range(MAX_TENSORS + 1)}
    assert errors(inspected(header=header))[0] == "too_many_tensors"


def test_every_finding_is_reported_at_once() -> None:
    codes = errors(inspected(header=tensors_of(dtype="I8"), use_dora=True, modules_to_save=["lm_head"], r=300, x=1))
    assert {"rank", "not_servable", "config_unknown", "tensor_rank", "tensor_dtype"} <= set(codes)
    assert codes.count("not_servable") == 2


# -- files made by strangers --------------------------------------------------------------------------------------

BAD_JSON = [
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"{} {}", b"{}x", b'{"a": 1, "a": 1}', b'{"a": {"b": 1, "b": 2}}',
    b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b"{'a': 1}", b'{"a": 01}', b'{"a": "\\ud800"}',
    b'{"\\udfff": 1}', b'{"a": "\xff"}', b'\xef\xbb\xbf{"a": 1}', b"\xff\xfe{\0}\0", b'{"a": ' + b"[" * 100_000,
    b'{"a": ' + b"9" * 5000 + b"}", b'{"a": ' * 40_000,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: repr(text[:20]))
def test_what_is_no_strict_json_object_is_unreadable_in_config_and_header(text: bytes) -> None:
    assert errors(inspected(text)) == ["unreadable"]
    assert errors(inspected(header=text)) == ["unreadable"]


def test_a_refusal_does_not_echo_the_whole_file() -> None:
    with pytest.raises(ValueError) as refused:
        parse_strictly(b'{"a": ' + b"x" * 100_000, "config")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "text", [b" {}", b"\n{}", b'{"__metadata__": 1}', b'{"__metadata__": {"a": 1}}', b'{"__metadata__": null}']
)
def test_a_header_that_safetensors_does_not_load_is_unreadable(text: bytes) -> None:
    assert errors(inspected(header=text)) == ["unreadable"]


@pytest.mark.parametrize("depth", range(880, 1000))
def test_nesting_at_the_limit_of_the_parser_is_a_finding_and_no_crash(depth: int) -> None:
    assert sys.getrecursionlimit() == 1000
    config = make_config(x="HERE").replace(b'"HERE"', b"[" * depth + b"]" * depth)
    assert errors(inspected(config)) in (["config_unknown"], ["unreadable"])
    header = json.dumps({**GOOD_HEADER, next(iter(GOOD_HEADER)): "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
    assert errors(inspected(header=header.encode()))


def test_a_shape_of_very_many_dimensions_takes_no_time() -> None:
    """Their product has millions of digits."""
    header = {f"{Q_PROJ}.lora_A.weight": {"dtype": "F32", "shape": [2**32 - 1] * 80_000, "data_offsets": [0, 4]}}
    text = json.dumps(header, separators=(",", ":")).encode()
    assert len(text) < MAX_HEADER_BYTES
    started = time.process_time()
    assert "tensor_layout" in errors(inspected(header=text))
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("declared", "file_size"),
    [(0, 100), (1, 100), (93, 100), (2**64 - 1, 100), (MAX_HEADER_BYTES + 1, 2**40), (2, 9), (2, 0)],
)
def test_a_header_that_is_empty_oversized_or_beyond_the_end_is_refused(declared: int, file_size: int) -> None:
    with pytest.raises(ValueError, match="not safetensors"):
        header_size(struct.pack("<Q", declared), file_size)


@pytest.mark.parametrize("prefix", [b"", b"\x02", b"\x02" + b"\0" * 6, b"\x02" + b"\0" * 8])
def test_a_file_shorter_than_its_length_field_is_refused(prefix: bytes) -> None:
    with pytest.raises(ValueError, match="not safetensors"):
        header_size(prefix, 100)


def test_the_length_of_a_header_is_little_endian_and_may_end_with_the_file() -> None:
    assert header_size(struct.pack("<Q", 258), 1000) == 258
    assert header_size(struct.pack("<Q", 92), 100) == 92


GOOD = make_adapter()
LENGTH = header_size(GOOD[WEIGHTS][:8], len(GOOD[WEIGHTS]))
GOOD_TEXT = GOOD[WEIGHTS][8 : 8 + LENGTH]
EDIT = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.binary(max_size=4))


def mutate(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Each edit replaces some bytes at a relative position with others."""
    for where, removed, added in edits:
        position = int(where * len(data))
        data = data[:position] + added + data[position + removed :]
    return data


@settings(max_examples=400, deadline=None)
@given(st.lists(EDIT, max_size=3), st.lists(EDIT, max_size=3))
def test_changed_bytes_give_findings_and_nothing_else(
    config_edits: list[tuple[float, int, bytes]], header_edits: list[tuple[float, int, bytes]]
) -> None:
    config, text = mutate(GOOD[CONFIG], config_edits), mutate(GOOD_TEXT, header_edits)
    findings = inspected(config, text)
    assert all(isinstance(one, Finding) and one.severity in ("error", "warning") and one.message for one in findings)
    if not errors(findings):  # what passes still means the same tensors
        assert json.loads(text).keys() - {"__metadata__"} == GOOD_HEADER.keys()


@settings(max_examples=300, deadline=None)
@given(st.lists(EDIT, max_size=3), st.booleans())
def test_what_passes_here_is_loaded_by_the_library_with_the_same_tensors(
    edits: list[tuple[float, int, bytes]], padded: bool
) -> None:
    """Two readers that disagree are a hole: what is checked would not be what is served."""
    text = mutate(GOOD_TEXT, edits) + (b" " * 8 if padded else b"")
    if errors(inspected(header=text)):
        return
    loaded = dict(safetensors.deserialize(struct.pack("<Q", len(text)) + text + bytes(GOOD_SIZE)))
    assert {name: (tensor["dtype"], tensor["shape"]) for name, tensor in loaded.items()} == {
        span.name: (span.dtype, span.shape) for span in spans_of(text)
    }


def test_the_modules_that_are_accepted_are_those_that_the_evaluators_engine_applies() -> None:
    assert set(SERVED_MODULES) == set(LORA_MODULES)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tiny", []), ("org/Tiny", []), ("/home/x/bases/tiny", []), ("/x/models--org--tiny/snapshots/0a1b", []),
        ("org/other", ["base_name_differs"]), ("/home/x/bases/other", ["base_name"]), ("/etc", ["base_name"]),
        ("~/other", ["base_name"]), ("", ["base_name_differs"]), ("http://x/tiny", ["base_name"]),
        ("a/../tiny", ["base_name"]),
        ("tiny\n", ["base_name"]), (None, []), (7, ["base_name"]),
    ],
)  # fmt: skip
def test_the_base_that_an_adapter_names_is_the_one_it_is_for(name: object, found: list[str]) -> None:
    config = json.loads(make_config(base_model_name_or_path=name))
    assert [one.code for one in check_config(config, "org/tiny")] == found


def test_more_findings_than_anybody_reads_are_cut_off_and_said_to_be() -> None:
    findings = inspected(**{f"x{i}": 0 for i in range(1000)})
    assert len(findings) == MAX_FINDINGS + 1 and errors(findings)[-1] == "more_findings"
    assert "more_findings" not in errors(inspected(**{f"x{i}": 0 for i in range(MAX_FINDINGS)}))


@pytest.mark.parametrize(
    ("changes", "found"),
    [({}, ["modules_not_covered"]), ({"layers_to_transform": [0]}, []), ({"exclude_modules": ["up_proj"]}, [])],
    ids=str,
)
def test_target_modules_without_tensors_are_a_warning_unless_the_config_says_why(
    changes: dict[str, Any], found: list[str]
) -> None:
    header, size = make_header({name: shape for name, shape in make_tensors().items() if "q_proj" in name})
    text = json.dumps(header).encode()
    findings = inspected(header=text, size=8 + len(text) + size, **changes)
    assert [(one.code, one.severity) for one in findings] == [(code, "warning") for code in found]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = sorted({*json.loads(GOOD[CONFIG]), "use_dora", "modules_to_save", "init_lora_weights", "rank_pattern", "x"})


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4),
    st.dictionaries(st.sampled_from([*GOOD_HEADER, "__metadata__", "t"]), JSON, max_size=3),
    st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), JSON, max_size=2),
)
def test_any_json_in_any_place_gives_findings_and_nothing_else(
    config: dict[str, Any], header: dict[str, Any], tensor: dict[str, Any]
) -> None:
    document = {**json.loads(GOOD[CONFIG]), **config}
    findings = inspected(json.dumps(document).encode(), {**tensors_of(**tensor), **header})
    assert all(one.severity in ("error", "warning") for one in findings)


@given(st.binary(max_size=16), st.integers(0, 2**40))
def test_any_first_bytes_declare_a_header_within_the_file_or_are_refused(prefix: bytes, file_size: int) -> None:
    try:
        size = header_size(prefix, file_size)
    except ValueError:
        return
    assert 2 <= size <= MAX_HEADER_BYTES and size + 8 <= file_size
