"""The house as architecture keeps it: who may import whom, and that the service needs no ML package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ML_PACKAGES = "torch transformers trl peft bitsandbytes datasets accelerate vllm gguf safetensors numpy huggingface_hub"
PUBLIC = {"registry.client", "registry.records"}
# Arrows point down: a room may import from the rooms below it.
FLOORS = (
    ("registry.cli", "registry.demo"),
    ("registry.api", "registry.web"),
    ("registry.operations.backup",),
    ("registry.opening",),
    ("registry.audit.log",),
    ("registry.registry", "registry.commands"),
    ("registry.access",),
    ("registry.storage", "registry.gate", "registry.review", "registry.inspection", "registry.approval.attestation"),
    ("registry.approval.verification",),
    ("registry.approval.dsse", "registry.approval.keyring"),
    ("registry.audit.references",),
    ("registry.events", "registry.records"),
    ("registry.audit.checkpoint",),
    ("registry.audit.merkle",),
    ("registry.names", "registry.errors"),
)


def modules(package: str) -> list[tuple[str, Path]]:
    found = sorted((ROOT / package).rglob("*.py"))
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path) for path in found]


def imports(path: Path) -> set[str]:
    """Every module of this project that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {one for one in found if one.partition(".")[0] in ("registry", "trainer", "evaluator")}


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


@pytest.mark.parametrize("package", ["trainer", "evaluator"])
def test_workers_see_only_the_public_surface_of_the_registry(package: str) -> None:
    for name, path in modules(package):
        seen = {one for one in imports(path) if one.startswith("registry.")}
        hidden = {one for one in seen if not any(within(one, room) for room in PUBLIC)}
        assert not hidden, f"{name} imports {sorted(hidden)}; take it from registry.client or registry.records"
        others = {"trainer", "evaluator"} - {package}
        assert not any(within(one, other) for one in imports(path) for other in others), name


def test_the_registry_imports_neither_trainer_nor_evaluator() -> None:
    for name, path in modules("registry"):
        assert not {one for one in imports(path) if one.partition(".")[0] != "registry"}, name


def test_arrows_between_the_rooms_point_down() -> None:
    for name, path in modules("registry"):
        floor = next((level for level, rooms in enumerate(FLOORS) if any(within(name, room) for room in rooms)), None)
        if floor is None:
            continue
        above = [room for rooms in FLOORS[:floor] for room in rooms]
        wrong = {one for one in imports(path) for room in above if within(one, room)}
        assert not wrong, f"{name} imports {sorted(wrong)}, which stands above it"


def test_service_client_and_command_line_load_no_ml_package() -> None:
    code = (
        "import sys, registry.cli, registry.client, registry.api.app, registry.opening;"
        f"found = set('{ML_PACKAGES}'.split()) & set(sys.modules);"
        "sys.exit(', '.join(found) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_pure_rules_touch_neither_clock_nor_disk_nor_network() -> None:
    pure = ["registry/gate", "registry/review", "registry/inspection", "registry/names.py"]
    pure += ["registry/audit/merkle.py", "registry/audit/checkpoint.py", "registry/audit/references.py"]
    for place in pure:
        for path in sorted((ROOT / place).rglob("*.py")) if (ROOT / place).is_dir() else [ROOT / place]:
            tree = ast.parse(path.read_text())
            plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            assert not plain & {"time", "os", "socket", "httpx", "random", "datetime", "pathlib"}, path
            assert "open" not in called, path
