"""What an adapter was made of, as documents that other tools read. Pure.

Croissant 1.1 (MLCommons) describes the training data: files by sha256, licences, sources, what became of the rows.
CycloneDX 1.7 lists the adapter's parts as a bill of materials: base model, data, libraries.
Both say only what the training record and its ledger say; a row without a licence leaves none to state.
"""

import re
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from registry import __version__
from registry.errors import InvalidRequest
from registry.ledgers import Ledger
from registry.records import TrainingRecord, VersionInfo

_MOST_NAMED = 1000
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\w!#$%&'()*+,./:;=?@\[\]~-]+", re.ASCII)
_TEXT, _INTEGER = "sc:Text", "sc:Integer"
_COLUMNS = {
    "source": (_TEXT, "data, replay (the base's own answers to general questions) or dpo (preference pairs)"),
    "id": (_TEXT, "the row's name in its file"),
    "line": (_INTEGER, "its line, from 1"),
    "disposition": (
        _TEXT,
        "what became of it: trained, validation, test, duplicate, too_long, blocked, empty or held_out",
    ),
    "reason": (_TEXT, "why it did not train"),
    "content_sha256": (_TEXT, "sha256 of its conversation"),
    "rendered_sha256": (_TEXT, "sha256 of the text that the model saw"),
    "trained_tokens": (_INTEGER, "tokens that were learnt from it"),
}
# Croissant 1.1's own context, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "prov": "http://www.w3.org/ns/prov#",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


class Made(NamedTuple):
    """A version with its training record, and its ledger's rows counted by what each column says."""

    version: VersionInfo
    training: TrainingRecord
    uses: dict[str, int]
    origins: dict[str, int]
    licences: dict[str, int]
    collectors: dict[str, int]
    reviewers: dict[str, int]


def made(version: VersionInfo, ledger: Ledger) -> Made:
    """Raises InvalidRequest where the version has no training record."""
    if version.training is None:
        raise InvalidRequest(f"{version.ref} has no training record; there is nothing to tell of its data")
    counts = [ledger.counts(name) for name in ("disposition", "origin", "licence", "collector", "reviewer")]
    return Made(version, version.training, *counts)


def croissant(of: Made, url: str) -> dict[str, Any]:
    """The training data of a version. url: the registry's, which serves the files to whoever may see them."""
    version, training = of.version, of.training
    uses = ", ".join(f"{count:,} {name}" for name, count in of.uses.items())
    files = [
        _file(
            "dataset.jsonl",
            training.dataset,
            "application/jsonlines",
            url,
            "the rows of every split, as they were used",
        ),
        _file("ledger.parquet", training.ledger, "application/vnd.apache.parquet", url, "what became of every row"),
    ]
    document = {
        "@context": dict(_CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"Training data of {version.ref}",
        "description": f"The rows that the adapter {version.ref} ({version.digest}) was trained from: {uses}.",
        "url": f"{url}/adapters/{version.ref}",
        "version": f"{version.number}.0.0",
        "datePublished": version.created_at,
        "creator": {"@type": "sc:Person", "name": version.submitter},
        "citeAs": f"Training data of {version.ref}, {version.created_at[:10]}, {training.dataset}, {url}",
        "isLiveDataset": False,
        "distribution": files,
        "recordSet": [_rows()],
        "rai:dataCollection": _told("Collected by", of.collectors),
        "rai:dataPreprocessingProtocol": f"Rows by what became of them: {uses}; findings of preflight by code: "
        + (", ".join(f"{code} {count}" for code, count in training.preflight.items()) or "not recorded"),
        "rai:dataAnnotationProtocol": _told("Reviewed by", of.reviewers),
        "prov:wasDerivedFrom": [_entity(origin) for origin in list(of.origins)[:_MOST_NAMED]],
    }
    if of.licences:
        document["license"] = list(of.licences)[:_MOST_NAMED]
    return {key: value for key, value in document.items() if value not in ("", [])}


def bill_of_materials(of: Made) -> dict[str, Any]:
    """The adapter as a component with a model card, and what it was made of."""
    version, training = of.version, of.training
    ref, base, data = f"adapter:{version.digest}", f"base:{version.base.digest}", f"data:{training.dataset}"
    libraries = [
        {"type": "library", "bom-ref": f"library:{name}", "name": name, "version": number}
        | {"purl": f"pkg:pypi/{quote(name)}@{quote(number)}"}
        for name, number in sorted(training.versions.items())
    ]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'tunegate:{version.digest}')}",
        "version": 1,
        "metadata": {
            "timestamp": version.created_at,
            "tools": {"components": [{"type": "application", "name": "tunegate", "version": __version__}]},
            "component": _model(of, ref, base, data),
        },
        "components": [
            {
                "type": "machine-learning-model",
                "bom-ref": base,
                "name": version.base.id,
                "hashes": [_hash(version.base.digest)],
            },
            _dataset(of, data),
            *libraries,
        ],
        "dependencies": [
            {"ref": ref, "dependsOn": [base, data, *(str(one["bom-ref"]) for one in libraries)]},
            {"ref": base},
            {"ref": data},
        ],
    }


def _model(of: Made, ref: str, base: str, data: str) -> dict[str, Any]:
    version, training = of.version, of.training
    measured = [{"type": name, "value": f"{value:.6g}"} for name, value in sorted(training.metrics.items())]
    told = [("tunegate:state", version.state.value), ("tunegate:seed", str(training.seed))]
    told += [(f"tunegate:waived:{code}", reason) for code, reason in sorted(training.waived.items())]
    told += [(f"tunegate:lint:{one.code}", one.message) for one in training.lint]
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": version.adapter,
        "version": str(version.number),
        "description": f"LoRA adapter {version.ref} on {version.base.id}",
        "hashes": [_hash(version.digest)],
        "components": [
            {"type": "file", "name": file.path, "hashes": [{"alg": "SHA-256", "content": file.sha256}]}
            for file in version.files
        ],
        "pedigree": {
            "ancestors": [
                {"type": "machine-learning-model", "name": version.base.id, "hashes": [_hash(version.base.digest)]}
            ]
        },
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "text-generation",
                "datasets": [{"ref": data}],
            },
            "quantitativeAnalysis": {"performanceMetrics": measured},
        },
        "properties": [{"name": name, "value": value} for name, value in told],
    }


def _dataset(of: Made, ref: str) -> dict[str, Any]:
    uses = ", ".join(f"{count:,} {name}" for name, count in of.uses.items())
    collectors = [{"organization": {"name": name}} for name in list(of.collectors)[:_MOST_NAMED]]
    data: dict[str, Any] = {"type": "dataset", "name": "training data", "description": f"rows: {uses}"}
    found: dict[str, Any] = {
        "type": "data",
        "bom-ref": ref,
        "name": f"training data of {of.version.ref}",
        "hashes": [_hash(of.training.dataset)],
        "data": [data | ({"governance": {"owners": collectors}} if collectors else {})],
        "properties": [
            {"name": f"tunegate:source:{origin}", "value": str(count)}
            for origin, count in list(of.origins.items())[:_MOST_NAMED]
        ],
    }
    if of.licences:
        found["licenses"] = [{"license": {"name": name}} for name in list(of.licences)[:_MOST_NAMED]]
    return found


def _entity(origin: str) -> dict[str, str]:
    """A source by its address, or by its name where it is no address."""
    return {"@id": origin} if _ADDRESS.fullmatch(origin) else {"@type": "prov:Entity", "name": origin}


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}


def _told(before: str, counts: Mapping[str, int]) -> str:
    named = [f"{name} ({count:,} rows)" for name, count in list(counts.items())[:_MOST_NAMED]]
    return f"{before} {', '.join(named)}." if named else ""


def _file(name: str, digest: str, encoding: str, url: str, description: str) -> dict[str, str]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": description,
        "contentUrl": f"{url}/v1/blobs/{digest}",
        "encodingFormat": encoding,
        "sha256": digest.removeprefix("sha256:"),
    }


def _rows() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "One record for each row of the run's input.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"rows/{name}",
                "name": name,
                "description": description,
                "dataType": kind,
                "source": {"fileObject": {"@id": "ledger.parquet"}, "extract": {"column": name}},
            }
            for name, (kind, description) in _COLUMNS.items()
        ],
    }
